#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

"""Layouts: which OSTs a file's bytes are on.

A layout is set before a file's first byte, or not at all: each file is made
with it, by ``lfs setstripe``, and then keeps it, through truncation, renaming
and whatever QEMU does. A file of which nothing special is wanted is made
without ``lfs`` and gets the default layout of its directory.

Operators write layouts as for ``lfs setstripe``. What is taken of it::

    layout     = options | component { component }
    component  = "-E" end options
    options    = { "-c" count | "-C" count | "-S" size | "-p" pool
                 | "-L" ( "raid0" | "mdt" ) }
    count      = "-1" | 1 ... 2000               (-1: all OSTs)
    size       = a multiple of 64 KiB, below 4 GiB, with K, M or G
    end        = "-1" | "EOF" | a multiple of 64 KiB, with K, M, G, T or P
    pool       = 1 to 15 letters, digits, "_" and "-"

Long names of options (``--stripe-count 4`` or ``--stripe-count=4``) mean the
same. Ends grow from component to component, and the last one is -1: a file has
no last byte. A component has the count, size and pool of the one before it
unless it names others. ``-L mdt`` (data on the MDT) is for the first component
of several, and has no other options. Nothing else is taken: not mirrors, which
QEMU's writes would make stale, and not OST indices, which would put all of a
type's volumes on the same few OSTs.

An exit code of 0 is never trusted: ``lfs`` accepts an empty pool and a count
that can't be had in silence.
"""

import dataclasses
import functools
import re
import types
from typing import Optional

from oslo_log import log as logging
from oslo_utils import units

from cinder import exception
from cinder.i18n import _
from cinder.lustre import files
from os_brick.remotefs import lustre_child

LOG = logging.getLogger(__name__)

TO_THE_END = -1
ALL_OSTS = -1
MOST_STRIPES = 2000
RAID0, OVERSTRIPED, MDT = 'raid0', 'raid0,overstriped', 'mdt'

_UNITS = {'': 1, 'K': units.Ki, 'M': units.Mi, 'G': units.Gi, 'T': units.Ti,
          'P': units.Pi}
_GRAIN = 64 * units.Ki
_STRIPE_LIMIT = 4 * units.Gi
# What an MDT takes of a file at most, whatever it is set to.
_MOST_ON_MDT = units.Gi
_MOST_COMPONENTS = 32

_LONG = {'--component-end': '-E', '--stripe-count': '-c',
         '--overstripe-count': '-C', '--stripe-size': '-S', '--pool': '-p',
         '--layout': '-L'}


class InvalidLayout(exception.VolumeDriverException):
    message = _("%(reason)s")


class LayoutRefused(exception.VolumeDriverException):
    message = _("No file can be made on Lustre share %(share)s with layout "
                "'%(layout)s' (%(origin)s): %(reason)s")


# What operators write

def stripe_count(text):
    """Read a number of stripes; -1 for as many as there are OSTs.

    :raises InvalidLayout:
    """
    if not re.fullmatch(r'-1|[1-9][0-9]{0,3}', str(text)) or (
            int(text) > MOST_STRIPES):
        raise InvalidLayout(reason=_(
            "'%(text)s' is no stripe count: 1 to %(most)s, or -1 for all OSTs")
            % {'text': text, 'most': MOST_STRIPES})
    return int(text)


def stripe_size(text):
    """Read the size of a stripe, and return bytes.

    :raises InvalidLayout:
    """
    size = _size(text, 'KMG')
    if not size or size >= _STRIPE_LIMIT:
        raise InvalidLayout(reason=_(
            "'%s' is no stripe size: a multiple of 64K below 4G, for example "
            "1M") % text)
    return size


def pool(text):
    """Read the name of an OST pool.

    :raises InvalidLayout:
    """
    if not re.fullmatch(r'[A-Za-z0-9_-]{1,15}', text) or text[0] == '-':
        raise InvalidLayout(reason=_(
            "'%s' is no name of an OST pool: 1 to 15 letters, digits, '_' and "
            "'-', without the file system's name") % text)
    return text


def _end(text):
    if text.upper() in ('-1', 'EOF'):
        return TO_THE_END
    end = _size(text, 'KMGTP')
    if not end:
        raise InvalidLayout(reason=_(
            "'%s' is no end of a component: a multiple of 64K, for example "
            "1G, or -1 for the end of the file") % text)
    return end


def _pattern(text):
    if text not in (RAID0, MDT):
        raise InvalidLayout(reason=_(
            "'%s' is no pattern of a component: raid0 or mdt") % text)
    return text


def _size(text, suffixes):
    match = re.fullmatch(r'([1-9][0-9]{0,17})([%s]?)' % suffixes,
                         text.upper())
    size = int(match[1]) * _UNITS[match[2]] if match else 0
    return size if size % _GRAIN == 0 and size < 1 << 63 else 0


def _sized(number):
    """Write a number of bytes as operators do."""
    for suffix in 'PTGMK':
        if number % _UNITS[suffix] == 0:
            return '%d%s' % (number // _UNITS[suffix], suffix)
    return str(number)


# Option of lfs: (field, how it is read, how it is written)
_OPTIONS = {
    '-c': ('count', stripe_count, str),
    '-C': ('count', stripe_count, str),
    '-S': ('size', stripe_size, _sized),
    '-p': ('pool', pool, str),
    '-L': ('pattern', _pattern, str),
}


@dataclasses.dataclass(frozen=True)
class Component:
    """A part of a file; what is None is left to Lustre.

    :ivar end: its first byte beyond, or TO_THE_END
    :ivar count: number of stripes, or ALL_OSTS
    :ivar size: of a stripe, in bytes
    :ivar pool: name of the OST pool
    :ivar pattern: RAID0, OVERSTRIPED or MDT
    """

    end: int = TO_THE_END
    count: Optional[int] = None
    size: Optional[int] = None
    pool: Optional[str] = None
    pattern: Optional[str] = None

    @property
    def options(self):
        """The options of lfs that make it, without its end."""
        if self.pattern == MDT:
            return ['-L', MDT]
        count = '-C' if self.pattern == OVERSTRIPED else '-c'
        return [word for option, value in (
            (count, self.count), ('-S', self.size), ('-p', self.pool))
            if value is not None
            for word in (option, _OPTIONS[option][2](value))]


@dataclasses.dataclass(frozen=True)
class Layout:
    """What is wanted of a file.

    :ivar components: from the start of the file to its end
    :ivar composite: whether it is a progressive layout, even of one component
    :ivar origin: who asks for it, for errors
    """

    components: tuple = (Component(),)
    composite: bool = False
    origin: str = dataclasses.field(default='', compare=False)

    @classmethod
    @functools.lru_cache
    def parse(cls, text):
        """Read a layout.

        :raises InvalidLayout: it is none; says where
        """
        return _Parser(text).layout()

    @property
    def options(self):
        """The options of ``lfs setstripe`` that make it."""
        words = []
        for component in self.components:
            if self.composite:
                words += ['-E', _sized(component.end) if component.end > 0
                          else '-1']
            words += component.options
        return words

    @property
    def pools(self):
        """The names of the OST pools it uses, each once."""
        return list(dict.fromkeys(component.pool
                                  for component in self.components
                                  if component.pool))

    def in_pool(self, name):
        """Return this layout with a pool for components that name none."""
        return dataclasses.replace(self, components=tuple(
            component if component.pool or component.pattern == MDT
            else dataclasses.replace(component, pool=name)
            for component in self.components))

    def of(self, origin):
        """Return this layout with the name of who asks for it."""
        return dataclasses.replace(self, origin=origin)

    def __str__(self):
        return ' '.join(self.options)


class _Parser:
    """Reads the words of a layout from left to right."""

    def __init__(self, text):
        self._text = text
        self._components = [Component()]
        self._named = set()
        self._composite = False

    def layout(self):
        for option, value in self._pairs():
            if option == '-E':
                self._begin(self._read(_end, value))
            else:
                self._set(option, value)
        self._check_component()
        if self._last.end != TO_THE_END:
            raise self._invalid(_("its last component has to end at -1"))
        return Layout(tuple(self._components), self._composite)

    def _pairs(self):
        """Yield each option, by its short name, with its value."""
        words = re.sub(r'(--[a-z-]+)=', r'\1 ', self._text).split()
        if not words:
            raise self._invalid(_("it is empty"))
        while words:
            name = words.pop(0)
            option = _LONG.get(name, name)
            if option != '-E' and option not in _OPTIONS:
                raise self._invalid(_(
                    "'%s' is none of the options -E, -c, -C, -S, -p and -L")
                    % name)
            if not words:
                raise self._invalid(_("%s has no value") % name)
            yield option, words.pop(0)

    @property
    def _last(self):
        return self._components[-1]

    def _begin(self, end):
        before = self._last
        if self._composite:
            self._check_component()
            if before.end == TO_THE_END or (
                    end != TO_THE_END and end <= before.end):
                raise self._invalid(_("ends of components have to grow, and "
                                      "nothing comes after -1"))
            if len(self._components) == _MOST_COMPONENTS:
                raise self._invalid(_("it has more than %s components")
                                    % _MOST_COMPONENTS)
            self._components.append(
                Component(end) if before.pattern == MDT
                else dataclasses.replace(before, end=end))
        elif self._named:
            raise self._invalid(_("options of a component follow its -E"))
        else:
            self._components = [Component(end)]
        self._composite, self._named = True, set()

    def _set(self, option, value):
        field, read, _write = _OPTIONS[option]
        if field in self._named:
            raise self._invalid(_("%s is given twice for one component")
                                % option)
        self._named.add(field)
        values = {field: self._read(read, value)}
        if field == 'count':
            values['pattern'] = OVERSTRIPED if option == '-C' else RAID0
            if self._last.pattern == MDT:
                raise self._invalid(_("data on the MDT have no stripes"))
        self._components[-1] = dataclasses.replace(self._last, **values)

    def _read(self, read, value):
        try:
            return read(value)
        except InvalidLayout as exc:
            raise self._invalid(exc.msg)

    def _check_component(self):
        if self._last.pattern != MDT:
            return
        if self._named != {'pattern'}:
            raise self._invalid(_("data on the MDT have no stripes"))
        if len(self._components) > 1 or not (
                0 < self._last.end <= _MOST_ON_MDT):
            raise self._invalid(_(
                "-L mdt is for the first of several components, of %s at most")
                % _sized(_MOST_ON_MDT))

    def _invalid(self, reason):
        return InvalidLayout(reason=_(
            "'%(text)s' is no layout: %(reason)s") % {
                'text': self._text, 'reason': reason})


# What is chosen for a volume

# Spec or option, without its prefix: (how it is read, what it is)
SETTINGS = {'stripe_count': stripe_count, 'stripe_size': stripe_size,
            'pool': pool, 'layout': Layout.parse}

# Up to this size one OST is enough for a volume, and its directory's default
# layout is what the operator has chosen.
_LARGE = units.Ti

# For larger ones: no object gets near to the 16 TiB where it ends on ldiskfs,
# and objects are made only as the file reaches them.
_FOR_LARGE = '-E 1T -c 1 -E 16T -c 8 -E -1 -c 32'


def choose(type_settings, defaults, size, origin):
    """Return the layout of a volume's files, or None: their directory's.

    What a type says of the shape of files (all but the pool) takes the place
    of all that the back end's options say of it.

    :param type_settings: {setting: its value} of the volume's type
    :param defaults: the same of the back end's options
    :param size: of the volume, in bytes
    :param origin: who asks for it, for errors
    :raises InvalidLayout: a type can't mean both a layout and a count
    """
    shape = _shape(type_settings) or _shape(defaults)
    check_settings(shape)
    if 'layout' in shape:
        layout = shape['layout']
    elif not shape and size > _LARGE:
        layout = Layout.parse(_FOR_LARGE)
    else:
        layout = Layout((Component(count=shape.get('stripe_count'),
                                   size=shape.get('stripe_size')),))
    name = type_settings.get('pool', defaults.get('pool'))
    if name:
        layout = layout.in_pool(name)
    return layout.of(origin) if layout.options else None


def _shape(settings):
    return {name: value for name, value in settings.items() if name != 'pool'}


def check_settings(settings):
    """Make sure that settings don't contradict each other.

    :raises InvalidLayout:
    """
    if 'layout' in settings and len(_shape(settings)) > 1:
        raise InvalidLayout(reason=_(
            "a layout says itself how many stripes there are and how large "
            "they are: give either it, or stripe_count and stripe_size"))


# What is done on a share

class OnShare:
    """A share, as this module needs it; a :class:`places.Place` will do.

    :ivar share: the :class:`os_brick.remotefs.lustre.Share`
    :ivar mode: of files that are made
    :ivar avoid: {index of an OST that no file should be on: why}
    """

    mode = 0o660
    avoid = types.MappingProxyType({})

    def __init__(self, share, client):
        self.share = share
        self.directory = client.mount_point(share)
        self.call = functools.partial(client.call, share)


# Lustre's MDS goes on choosing an OST that is gone for some minutes, and
# chooses another one with the next file.
_ATTEMPTS = 5


def create(place, path, layout, is_first):
    """Make an empty file with a layout; one that is there is replaced.

    :param place: an :class:`OnShare`
    :param is_first: whether it is the first one of its kind: what can't be
        had is told then, and not with each of those that follow
    :raises LayoutRefused: Lustre can't
    """
    if is_first:
        check_pools(place, layout)
    try:
        _make(place, path, layout, is_first)
    except LayoutRefused:
        # Of some errors lfs leaves a file.
        place.call(files.remove_if_there, path)
        raise
    place.call(files.set_mode, path, place.mode)


def _make(place, path, layout, is_first):
    for _attempt in range(_ATTEMPTS):
        place.call(files.remove_if_there, path)
        _set(place, path, layout)
        if not (is_first or place.avoid):
            return
        found = of_file(place, path)
        if not _useless(place, found):
            break
    else:
        raise _refused(place, layout, _("it would be on %s")
                       % _useless(place, found))
    if is_first:
        _compare(place, path, layout, found)


def _set(place, path, layout):
    code, _output, error = lfs(place, 'setstripe', *layout.options, path)
    if code:
        raise _refused(place, layout, said(code, error))


def _refused(place, layout, reason):
    return LayoutRefused(share=place.share, layout=layout,
                         origin=layout.origin, reason=reason)


def check_pools(place, layout):
    """Make sure that the pools of a layout are there, and have OSTs.

    Lustre takes an empty pool, and puts the file elsewhere.

    :raises LayoutRefused: a pool is missing or empty
    """
    for name in layout.pools:
        if not pool_members(place, name):
            raise _refused(place, layout, _(
                "file system %(fsname)s has no OST pool '%(pool)s', or it is "
                "empty") % {'fsname': place.share.fsname, 'pool': name})


def ost_name(share, index):
    """Return what Lustre's own messages call an OST."""
    return '%s-OST%04x' % (share.fsname, index)


def pool_members(place, name):
    """Return the indices of the OSTs in a pool; none where there is none."""
    code, output, _error = lfs(place, 'pool_list',
                               '%s.%s' % (place.share.fsname, name))
    return [] if code else [int(index, 16) for index in
                            re.findall(r'(?m)-OST([0-9a-f]{4})_UUID$', output)]


def pool_names(place):
    """Return the names of a file system's OST pools."""
    fsname = place.share.fsname
    code, output, error = lfs(place, 'pool_list', fsname)
    if code:
        raise exception.VolumeDriverException(message=_(
            "The OST pools of %(fsname)s can't be listed: %(reason)s") % {
                'fsname': fsname, 'reason': said(code, error)})
    return re.findall(r'(?m)^%s\.(\S+)$' % re.escape(fsname), output)


def osts(place):
    """Return (total, available) bytes of each OST, by its index.

    None instead, where an OST doesn't answer. One that was deactivated is left
    out by lfs. ``--lazy``: without it lfs waits for OSTs that are gone.

    :raises VolumeDriverException: there is no telling
    """
    code, output, error = lfs(place, 'df', '--lazy', place.directory)
    rows = re.findall(r'(?m)^\S+-OST([0-9a-f]{4})_UUID +'
                      r'(?:(\d+) +\d+ +(\d+)|:)', output)
    if not rows:
        raise exception.VolumeDriverException(message=_(
            "The OSTs of Lustre share %(share)s can't be listed: %(reason)s")
            % {'share': place.share, 'reason': said(code, error)})
    return {int(index, 16): (int(total) * units.Ki,
                             int(available) * units.Ki) if total else None
            for index, total, available in rows}


def of_file(place, path):
    """Return the layout that a file really has, as a :class:`Found`.

    :raises LayoutRefused: there is no telling
    """
    code, output, error = lfs(place, 'getstripe', path)
    if code:
        raise exception.VolumeDriverException(message=_(
            "The layout of %(path)s on Lustre share %(share)s can't be read: "
            "%(reason)s") % {'path': path, 'share': place.share,
                             'reason': said(code, error)})
    return Found.parse(output)


@dataclasses.dataclass(frozen=True)
class Part:
    """A component of a file that is there.

    :ivar osts: the indices of the OSTs of its objects; none as long as the
        file has not reached it
    """

    component: Component
    osts: tuple = ()

    def __str__(self):
        words = ' '.join(self.component.options)
        return words + (' on OST ' + ','.join(map(str, self.osts))
                        if self.osts else '')


@dataclasses.dataclass(frozen=True)
class Found:
    """What ``lfs getstripe`` says of one file."""

    parts: tuple

    @classmethod
    def parse(cls, output):
        """Read the table of one file.

        A component begins with its id, a plain layout has but one.
        """
        plain, *components = re.split(r'(?m)^ +lcme_id:', output)
        return cls(tuple(map(cls._part, components or [plain])))

    @staticmethod
    def _part(text):
        found = dict(re.findall(r'(?m)^ *(?:lmm_|lcme_extent\.)(\w+): +(\S+)$',
                                text))
        end = found.get('e_end', 'EOF')
        pattern = found.get('pattern', RAID0)
        return Part(
            Component(TO_THE_END if end == 'EOF' else int(end),
                      int(found.get('stripe_count', 1)),
                      int(found.get('stripe_size', 0)) or None,
                      found.get('pool'), pattern),
            tuple(int(plain or index) for plain, index in re.findall(
                r'(?m)^\t +(\d+)\t|l_ost_idx: +(\d+),', text)))

    @property
    def layout(self):
        """The layout that makes such a file."""
        return Layout(tuple(part.component for part in self.parts),
                      len(self.parts) > 1)

    def is_as(self, wanted):
        """Tell whether it is what is wanted, in all that this says."""
        return len(self.parts) == len(wanted.components) and all(
            one in (None, other)
            for component, part in zip(wanted.components, self.parts)
            for one, other in zip(dataclasses.astuple(component),
                                  dataclasses.astuple(part.component)))

    @property
    def osts(self):
        """The indices of all OSTs that the file has bytes on."""
        return sorted({index for part in self.parts for index in part.osts})

    def __str__(self):
        if len(self.parts) == 1:
            return str(self.parts[0])
        return ', '.join('to %s: %s' % (
            _sized(part.component.end) if part.component.end > 0 else
            'the end', part) for part in self.parts)


def _compare(place, path, layout, found):
    """See what a file got, and log it.

    More stripes than there are OSTs are cut to as many.

    :raises LayoutRefused: it is not in the pool it should be in
    """
    for wanted, part in zip(layout.components, found.parts):
        got = part.component
        if wanted.pool != got.pool and wanted.pool:
            raise _refused(place, layout,
                           _("what was made is '%s'") % found)
        if (wanted.count or 1) > got.count > 0:
            LOG.warning('%(path)s has %(got)s stripes instead of %(wanted)s: '
                        'there are no more OSTs for it (%(origin)s)', {
                            'path': path, 'got': got.count,
                            'wanted': wanted.count, 'origin': layout.origin})
    LOG.info('%(path)s has the layout %(found)s', {'path': path,
                                                   'found': found})


def migrate(place, path, layout, size):
    """Move the bytes of a file to where a layout puts them.

    Lustre copies them to a file without a name and then lets both change
    their objects, in one step: whenever this is interrupted, the file is as
    before or as wanted. Path, inode and attributes stay. Space that was
    allocated and never written is lost.

    :param place: a :class:`places.Place`
    :param layout: None for one like that which the file has: then it is only
        moved off the OSTs that the place avoids
    :param size: of the file, in bytes
    :returns: whether there was anything to do
    :raises LayoutRefused: Lustre can't
    """
    found = of_file(place, path)
    layout = layout or found.layout.of(_("the file's own"))
    if found.is_as(layout) and not _useless(place, found):
        return False
    LOG.info('%(path)s is moved from %(found)s to %(layout)s: %(size)s bytes',
             {'path': path, 'found': found, 'layout': layout, 'size': size})
    code, _output, error = lfs(place, 'migrate', *layout.options, path,
                               copied=size)
    if code:
        raise _refused(place, layout, said(code, error))
    found = of_file(place, path)
    _compare(place, path, layout, found)
    if _useless(place, found):
        raise _refused(place, layout, _(
            "it was moved, but is still on %s; let the MDS make no more "
            "objects there (lctl set_param osp.<OST>*.max_create_count=0)")
            % _useless(place, found))
    return True


def _useless(place, found):
    """Name the OSTs that a file is on and should not be."""
    return ', '.join(
        _("%(ost)s, which %(why)s") % {'ost': ost_name(place.share, index),
                                       'why': place.avoid[index]}
        for index in found.osts if index in place.avoid)


def lfs(place, *args, **kwargs):
    """Run lfs, and return its exit code, output and what it said."""
    try:
        return place.call(lustre_child.run, 'lfs', *args, **kwargs)
    except FileNotFoundError:
        raise exception.VolumeDriverException(message=_(
            "lfs is not installed on this host (lustre-client or "
            "lustre-utils)"))


def said(code, error):
    """Return why lfs failed."""
    # What follows a wrong option is lfs's usage.
    return ' '.join(error.split()) or _("lfs exits with %s") % code
