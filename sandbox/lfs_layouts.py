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

"""lfs setstripe, getstripe and migrate."""

import errno
import fcntl
import getopt
import os
import re
import stat

from sandbox import layouts
from sandbox import lfs_common

_UNITS = {'': 0, 'K': 10, 'M': 20, 'G': 30, 'T': 40, 'P': 50}
_SHORT = {'--component-end': '-E', '--stripe-count': '-c',
          '--stripe-size': '-S', '--pool': '-p', '--stripe-index': '-i',
          '--ost': '-o', '--overstripe-count': '-C', '--layout': '-L',
          '--delete': '-d', '--non-block': '-n', '--block': '-b',
          '--yaml': '-y', '--directory': '-d', '--quiet': '-q',
          '--mirror-count': '-N'}


# What is asked for

class _Wish:
    """The options of setstripe and migrate, in their order."""

    def __init__(self, command, arguments, short, *long):
        self._command = command
        self.osts, self.others, self.mode = None, set(), 0o644
        self.composite = False
        self.components = [layouts.Component(count=0, size=0)]
        self._readers = {'-E': self._end, '-c': self._count,
                         '-C': self._overstripe, '-S': self._size,
                         '-p': self._pool, '-L': self._pattern,
                         '-i': self._index, '-o': self._indices,
                         '--mode': self._mode}
        switches, self.words = _switches(
            'lfs ' + command, arguments, 'E:c:C:S:p:L:i:o:' + short,
            'component-end=', 'stripe-count=', 'overstripe-count=',
            'stripe-size=', 'pool=', 'layout=', 'stripe-index=', 'ost=',
            *long)
        for name, value in switches:
            if name in self._readers:
                self._readers[name](value)
            else:
                self.others.add(name)

    @property
    def layout(self):
        for component in self.components:
            if component.pattern == layouts.MDT:
                component.count, component.size = 0, component.end
            else:
                component.count = component.count or 1
                component.size = component.size or layouts.STRIPE_SIZE
        return layouts.Layout(self.components, self.composite)

    @property
    def _last(self):
        return self.components[-1]

    def _end(self, text):
        end = (layouts.TO_THE_END if text.lower() in ('-1', 'eof')
               else _size_of(text))
        if end is None or end == 0:
            raise self._invalid('component end', text)
        if self.composite:
            before = self._last
            if layouts.TO_THE_END in (before.end, ) or (
                    end != layouts.TO_THE_END and end <= before.end):
                raise self._invalid('component end', text)
            self.components.append(
                layouts.Component(count=0, size=0)
                if before.pattern == layouts.MDT else
                layouts.Component(count=before.count, size=before.size,
                                  pool=before.pool))
        self.composite = True
        self._last.end = end

    def _count(self, text):
        if not re.fullmatch(r'-1|\d+', text) or (
                int(text) > layouts.MOST_STRIPES):
            raise self._invalid('stripe count', text)
        self._last.count = int(text)

    def _overstripe(self, text):
        self._count(text)
        self._last.pattern = layouts.OVERSTRIPED

    def _size(self, text):
        size = _size_of(text)
        if size is None:
            raise self._invalid('stripe size', text)
        if size >= layouts.LARGEST_STRIPE:
            raise self._failed("error: stripe size '%d' over 4GB limit: "
                               "Invalid argument (22)" % size, errno.EINVAL)
        self._last.size = size

    def _pool(self, text):
        name = text.rpartition('.')[2]
        if len(name) > layouts.LONGEST_POOL_NAME:
            raise self._failed("Invalid Poolname '%s': Invalid argument (22)"
                               % text, errno.EINVAL)
        self._last.pool = text

    def _pattern(self, text):
        if text not in (layouts.MDT, layouts.RAID0):
            raise self._invalid('layout', text)
        self._last.pattern = text

    def _index(self, text):
        if text != '-1':
            self.osts = [int(text)]

    def _indices(self, text):
        self.osts = [int(word) for word in text.split(',')]

    def _mode(self, text):
        self.mode = int(text, 8)

    def check_pools(self, fs):
        """Look the pools up, and leave their file system's name away.

        Of another file system's pool nothing is known, and nothing said.
        """
        for component in self.components:
            fsname, dot, pool = (component.pool or '').rpartition('.')
            if pool and (not dot or fsname == fs.name) and (
                    pool not in fs.pools):
                raise self._failed(
                    "pool '%s fsname %s' does not exist: No such file or "
                    "directory (2)" % (pool, fs.name), errno.EINVAL)
            component.pool = pool or None

    def _invalid(self, what, text):
        return lfs_common.Misused("lfs %s %s: invalid %s '%s'" % (
            self._command, self._command, what, text))

    def _failed(self, words, code):
        return lfs_common.Failed('lfs %s: %s' % (self._command, words), code)


def _switches(who, arguments, short, *long):
    try:
        switches, words = getopt.gnu_getopt(arguments, short, long)
    except getopt.GetoptError as error:
        raise lfs_common.Misused(
            ("%s: unrecognized option '--%s'" if len(error.opt) > 1
             else "%s: invalid option -- '%s'") % (who, error.opt))
    return [(_SHORT.get(name, name), value)
            for name, value in switches], words


def _size_of(text):
    match = re.fullmatch(r'(\d+)([KMGTP]?)', text.upper())
    size = int(match[1]) << _UNITS[match[2]] if match else None
    return None if size is None or size % layouts.UNIT else size


# lfs setstripe

def setstripe(arguments):
    wish = _Wish('setstripe', arguments, 'd', 'delete', 'mode=')
    for path in wish.words:
        if os.path.isdir(path):
            _set_default(path, wish)
        else:
            _make(path, wish)


def _set_default(path, wish):
    share = _share_of(path, 'setstripe', 'setstripe error for')
    path = os.path.realpath(path)
    if '-d' in wish.others:
        return layouts.forget(path)
    wish.check_pools(share.fs)
    layout = wish.layout
    before = layouts.default(path, share.target)
    for component in layout.components:
        component.pool = component.pool or before.components[-1].pool
    try:
        layouts.write(path, layout)
    except PermissionError as error:
        raise _cannot_open(path, error)


def _make(path, wish):
    directory = os.path.dirname(os.path.realpath(path))
    if os.path.isdir(directory):
        share = _share_of(path, 'setstripe', 'setstripe error for')
        wish.check_pools(share.fs)
    if os.path.exists(path):
        raise lfs_common.Failed("lfs setstripe: setstripe error for '%s': "
                                "stripe already set" % path, errno.EEXIST)
    try:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, wish.mode)
    except OSError as error:
        raise _cannot_open(path, error)
    _lay_out(share, path, fd, wish)
    os.close(fd)


def _lay_out(share, path, fd, wish):
    layout = wish.layout
    if any(index >= share.fs.osts for index in wish.osts or ()):
        # The real one leaves the file there too.
        raise lfs_common.Failed("lfs setstripe: setstripe error for '%s': "
                                "Invalid argument" % path, errno.EINVAL)
    try:
        layouts.allocate(share.fs, layout, wish.osts,
                         layouts.turn(os.path.dirname(os.path.realpath(path))))
    except layouts.NoSpace:
        # Not in the transcripts; the words are those of the others.
        os.unlink(path)
        raise lfs_common.Failed("lfs setstripe: setstripe error for '%s': "
                                "No space left on device" % path,
                                errno.ENOSPC)
    layouts.write(path, layout)


def _cannot_open(path, error):
    return lfs_common.Failed("lfs setstripe: unable to open '%s': %s (%d)" % (
        path, os.strerror(error.errno), error.errno), error.errno)


def _share_of(path, command, complaint):
    try:
        return lfs_common.share_of(os.path.realpath(path), command)
    except lfs_common.Failed:
        raise lfs_common.Failed(
            "lfs %s: %s '%s': Inappropriate ioctl for device" % (
                command, complaint, path), errno.ENOTTY)


# lfs migrate

def migrate(arguments):
    wish = _Wish('migrate', arguments, 'nb', 'non-block', 'block')
    for path in wish.words:
        try:
            _migrate(path, wish)
        except OSError as error:
            # Not in the transcripts; the words are those of the others.
            raise lfs_common.Failed(
                'error: lfs migrate: %s: cannot open: %s' % (
                    path, os.strerror(error.errno)), error.errno)


def _migrate(path, wish):
    fd = os.open(path, os.O_RDWR)
    share = _share_of(path, 'migrate', 'cannot migrate')
    try:
        wish.check_pools(share.fs)
    except lfs_common.Failed as failed:
        raise lfs_common.Failed('%s\nerror: lfs migrate: %s: cannot create '
                                'volatile file: Invalid argument' % (
                                    failed.words, path), failed.code)
    if '-n' in wish.others and _is_open_elsewhere(fd):
        raise lfs_common.Failed(
            'lfs migrate: cannot get READ lease, ext 0 for [%s]: Device or '
            'resource busy (16)\nerror: lfs migrate: %s: cannot get lease: '
            'Device or resource busy' % (_fid(os.fstat(fd)), path),
            errno.EBUSY)
    layout = wish.layout
    try:
        layouts.allocate(share.fs, layout, wish.osts,
                         os.fstat(fd).st_ino + 1)
    except layouts.NoSpace:
        raise lfs_common.Failed('error: lfs migrate: %s: cannot copy: No '
                                'space left on device' % path, errno.ENOSPC)
    layouts.write(path, layout)
    os.close(fd)


def _is_open_elsewhere(fd):
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return False
    except OSError as error:
        return error.errno == errno.EAGAIN


# lfs getstripe

_FIELDS = {'-c': 'stripe_count', '-S': 'stripe_size', '-i': 'stripe_offset',
           '-p': 'pool'}


def getstripe(arguments):
    switches, words = _switches(
        'lfs', arguments, 'cSipydqN', 'stripe-count', 'stripe-size',
        'stripe-index', 'pool', 'yaml', 'directory', 'quiet',
        'component-count', 'mirror-count')
    wanted = [name for name, _value in switches]
    for path in words:
        _show(path, wanted)


def _show(path, wanted):
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            os.listdir(path)
    except PermissionError:
        raise lfs_common.Failed(
            "lfs getstripe: llapi_semantic_traverse: Failed to open '{0}': "
            "Permission denied (13)\nlfs: getstripe for '{0}' failed: "
            "Permission denied".format(path), errno.EACCES)
    except OSError as error:
        raise lfs_common.Failed("lfs: getstripe for '%s' failed: %s" % (
            path, os.strerror(error.errno)), error.errno)
    share = _share_to_show(path)
    named = not {'-d', '-y'} & set(wanted) and not _asked(wanted)
    if stat.S_ISDIR(status.st_mode):
        _show_directory(share, path, wanted, named)
    else:
        _show_file(share, path, wanted, named)


def _show_directory(share, path, wanted, named):
    layout = layouts.default(os.path.realpath(path), share.target)
    if named:
        print(path)
    _print_directory(layout, '-y' in wanted)
    if '-d' not in wanted:
        for name in sorted(os.listdir(path)):
            entry = os.path.join(path, name)
            if os.path.isfile(entry):
                _show_file(share, entry, wanted, named)


def _show_file(share, path, wanted, named):
    layout = layouts.of_file(share.fs, os.path.realpath(path), share.target)
    if named:
        print(path)
    if _asked(wanted):
        _print_fields(layout, _asked(wanted))
    elif '-y' in wanted:
        _print_yaml(share.fs, layout)
    elif '-q' in wanted:
        _print_objects(layout.components[0])
    else:
        _print_all(share.fs, layout)


def _share_to_show(path):
    try:
        return lfs_common.share_of(os.path.realpath(path), 'getstripe')
    except lfs_common.Failed:
        raise lfs_common.Failed(
            "lfs getstripe: cb_getstripe: '{0}' not on a Lustre fs?: "
            "Inappropriate ioctl for device (25)\nlfs: getstripe for '{0}' "
            "failed: Inappropriate ioctl for device".format(path),
            errno.ENOTTY)


def _asked(wanted):
    return [name for name in wanted
            if name in _FIELDS or name in ('--component-count', '-N')]


def _print_fields(layout, wanted):
    if wanted in (['--component-count'], ['-N']):
        count = len(layout.components) if wanted[0] != '-N' else 1
        return print('%d\n' % count)
    # Of a composite layout it is the last part that has objects.
    component = [each for each in layout.components
                 if each.osts or each.pattern == layouts.MDT][-1]
    names = {'lmm_' + _FIELDS[option] for option in wanted}
    for name, value in _fields(component):
        if name in names:
            print(value if len(wanted) == 1 else _line(name, value))
    print()


def _line(name, value):
    return '%-18s %s' % (name + ':', value)


def _fields(component):
    """What is said of a component, before its objects."""
    on_mdt = component.pattern == layouts.MDT
    count = len(component.osts) or component.count
    fields = [('stripe_count', count), ('stripe_size', component.size),
              ('pattern', component.pattern), ('layout_gen', 0),
              ('mdt_index', 0) if on_mdt else
              ('stripe_offset', (component.osts or [-1])[0])]
    if component.pool:
        fields.append(('pool', component.pool))
    return [('lmm_' + name, value) for name, value in fields]


def _object(fs, index, number):
    return '0x%x:0x%x:0x0' % (0x240000400 + (index << 30), number + 2)


def _fid(status):
    return '0x200000401:0x%x:0x0' % status.st_ino


def _print_all(fs, layout):
    if not layout.composite:
        for name, value in _fields(layout.components[0]):
            print(_line(name, value))
        return _print_objects(layout.components[0])
    _print_head(layout, '  ', len(layout.components))
    for number, (start, component) in enumerate(
            zip(layout.starts(), layout.components), 1):
        _print_part(component, number, start)
        for name, value in _fields(component):
            print('      ' + _line(name, value))
        if component.osts:
            print('      lmm_objects:')
            for place, index in enumerate(component.osts):
                print('      - %3d: { l_ost_idx: %3d, l_fid: [%s] }' % (
                    place, index, _object(fs, index, place)))
        print()


def _print_head(layout, indent, generation):
    for name, value in (('lcm_layout_gen', generation),
                        ('lcm_mirror_count', 1),
                        ('lcm_entry_count', len(layout.components))):
        print(indent + _line(name, value))


def _print_part(component, number, start, dash='    '):
    is_there = component.osts or component.pattern == layouts.MDT
    _print_extent(component, start, dash, number, 0,
                  'init' if is_there else '0')


def _print_extent(component, start, dash, number, mirror, flags):
    for name, value in (
            ('lcme_id', number), ('lcme_mirror_id', mirror),
            ('lcme_flags', flags), ('lcme_extent.e_start', start),
            ('lcme_extent.e_end', 'EOF' if component.end == layouts.TO_THE_END
             else component.end)):
        print('%s%-20s %s' % (dash, name + ':', value))
        dash = '    '


def _print_objects(component):
    print('\tobdidx\t\t objid\t\t objid\t\t group')
    for place, index in enumerate(component.osts):
        print('\t%6d\t%14d\t%#13x\t%#14x' % (
            index, place + 2, place + 2, 0x240000400 + (index << 30)))
    print()


def _print_yaml(fs, layout):
    if not layout.composite:
        component, = layout.components
        for name, value in _fields(component):
            print(_line(name, value))
        return _print_yaml_objects(fs, component, '')
    _print_head(layout, '', len(layout.components))
    print('components:')
    for number, (start, component) in enumerate(
            zip(layout.starts(), layout.components), 1):
        _print_part(component, number, start, '  - ')
        print('    sub_layout:')
        for name, value in _fields(component):
            print('      ' + _line(name, value))
        _print_yaml_objects(fs, component, '      ')


def _print_yaml_objects(fs, component, indent):
    if component.osts:
        print(indent + 'lmm_objects:')
        for place, index in enumerate(component.osts):
            print('      - l_ost_idx: %d\n        l_fid:     %s' % (
                index, _object(fs, index, place)))


def _print_directory(layout, yaml):
    if not layout.composite:
        print(_default_line(layout.components[0], layout.unset, yaml))
        return None if yaml else print()
    _print_head(layout, '  ', 0)
    for start, component in zip(layout.starts(), layout.components):
        _print_extent(component, start, '    ', 'N/A', 'N/A', 0)
        print('      ' + '       '.join(
            words.rstrip() for words in _default_words(component)) + '\n')


def _default_words(component, unset=False):
    pattern = '' if unset else component.pattern
    words = ['stripe_count:  %d' % component.count,
             'stripe_size:   %d' % component.size,
             'pattern:       %s' % pattern, 'stripe_offset: -1']
    return words + (['pool:          ' + component.pool]
                    if component.pool else [])


def _default_line(component, unset, yaml):
    words = _default_words(component, unset)
    if unset:
        words[2] = 'pattern:       '
    return ('\n' if yaml else ' ').join(words)
