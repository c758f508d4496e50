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

"""Where the files of volumes are put: what types and options say of it.

The extra specs ``lustre:stripe_count``, ``lustre:stripe_size``,
``lustre:pool`` and ``lustre:layout`` of a volume's type, and the back end's
options of the same names, are about every file that is made for a volume:
:mod:`cinder.lustre.layout` says what they mean.
"""

import contextlib

from oslo_utils import units

from cinder import exception
from cinder.i18n import _
from cinder.lustre import capacity
from cinder.lustre import layout
from cinder.volume import volume_utils

_SCOPE = 'lustre:'


class PlacementMixin:
    """The methods of a driver for layouts and OST pools."""

    def _configured_layout(self):
        """Read the options of the layout.

        :raises InvalidConfigurationValue: naming the option
        """
        values = {name: self.configuration.safe_get('lustre_' + name)
                  for name in layout.SETTINGS}
        settings = {}
        for name, value in values.items():
            if value is not None:
                with _named(name, value):
                    settings[name] = layout.SETTINGS[name](value)
        with _named('layout', values['layout']):
            layout.check_settings(settings)
        return settings

    def _configured_ost_pools(self):
        """Read the names of the OST pools that are pools of the back end.

        :raises InvalidConfigurationValue: one is no name
        """
        names = self.configuration.lustre_ost_pools
        if capacity.ALL in names and len(names) > 1:
            raise exception.InvalidConfigurationValue(
                option='lustre_ost_pools', value=_("%s (all and others)")
                % ', '.join(names))
        for name in names:
            with _named('ost_pools', name):
                layout.pool(name)
        return names

    def _check_ost_pool(self, volume):
        """Make sure that the scheduler has chosen what the type asks for.

        :raises InvalidVolumeType: it hasn't
        """
        chosen = _ost_pool(volume)
        wanted = self._layout_specs(volume).get('pool', chosen)
        if chosen and wanted != chosen:
            raise exception.InvalidVolumeType(reason=_(
                "extra spec lustre:pool=%(wanted)s of volume type %(type)s: "
                "the scheduler has chosen OST pool %(chosen)s; add the extra "
                "spec lustre_pool=%(wanted)s, which it reads") % {
                    'wanted': wanted, 'chosen': chosen,
                    'type': volume.volume_type.name})

    def _check_is_in_pool(self, volume, reference, place, path):
        """Make sure that a file is in the OST pool that the host names.

        :raises ManageExistingInvalidReference: it isn't
        """
        name = _ost_pool(volume)
        if not name:
            return
        found = layout.of_file(place, path)
        if not set(found.osts) <= set(layout.pool_members(place, name)):
            raise exception.ManageExistingInvalidReference(
                existing_ref=reference, reason=_(
                    "it is not in OST pool %(pool)s, but: %(found)s; move it "
                    "first (lfs migrate -p %(pool)s)") % {
                        'pool': name, 'found': found})

    def _layout(self, volume):
        """Return the layout for the files of a volume, or None.

        The OST pool that the scheduler has chosen is where they belong.

        :raises InvalidVolumeType: naming type, spec and value
        """
        settings = self._layout_specs(volume)
        origin = (_("volume type %s") % volume.volume_type.name if settings
                  else _("the back end's options, or %s") % volume.host)
        if _ost_pool(volume):
            settings['pool'] = _ost_pool(volume)
        try:
            return layout.choose(settings, self._layout_defaults,
                                 volume.size * units.Gi, origin)
        except layout.InvalidLayout as exc:
            raise exception.InvalidVolumeType(reason=_(
                "extra specs lustre:layout and others of volume type %(type)s:"
                " %(reason)s") % {'type': volume.volume_type.name,
                                  'reason': exc.msg})

    def _layout_specs(self, volume):
        specs = self._extra_specs(volume)
        settings = {}
        for name, read in layout.SETTINGS.items():
            value = specs.get(_SCOPE + name)
            if value is None:
                continue
            try:
                settings[name] = read(value)
            except layout.InvalidLayout as exc:
                raise exception.InvalidVolumeType(reason=_(
                    "extra spec %(spec)s=%(value)s of volume type %(type)s: "
                    "%(reason)s") % {
                        'spec': _SCOPE + name, 'value': value,
                        'type': volume.volume_type.name, 'reason': exc.msg})
        return settings

    def _set_layout_properties(self, properties):
        """Describe the extra specs of the layout, for capabilities."""
        for name, title, description, kind, limits in (
                ('stripe_count', _('Stripe count'), _(
                    'How many OSTs a file is spread over; -1 for all.'),
                 'integer', {'minimum': layout.ALL_OSTS,
                             'maximum': layout.MOST_STRIPES}),
                ('stripe_size', _('Stripe size'), _(
                    'Bytes that go to one OST at a time: a multiple of 64K '
                    'below 4G.'), 'string', {}),
                ('pool', _('OST pool'), _(
                    'OST pool that the files are on.'), 'string', {}),
                ('layout', _('Layout'), _(
                    'Progressive layout, in options of lfs setstripe.'),
                 'string', {})):
            default = self._layout_defaults.get(name)
            if default is not None:
                limits = {**limits, 'default': default if kind == 'integer'
                          else str(self.configuration.safe_get(
                              'lustre_' + name))}
            self._set_property(properties, _SCOPE + name, title, description,
                               kind, **limits)


def _ost_pool(volume):
    """Return the OST pool that the scheduler has chosen, if any."""
    pool = volume_utils.extract_host(volume.host, 'pool')
    return capacity.split_pool(pool or '')[1]


@contextlib.contextmanager
def _named(name, value):
    """Let what is wrong with an option's value name the option."""
    try:
        yield
    except layout.InvalidLayout as exc:
        raise exception.InvalidConfigurationValue(
            option='lustre_' + name, value='%s (%s)' % (value, exc.msg))
