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

"""cinder-lustre: what an operator asks of the Lustre back ends of a host.

It reads the host's cinder.conf, talks to the database and uses the shares that
cinder-volume has mounted, as the same user and under the same locks: a volume
that is moved can't be attached, deleted or copied meanwhile.
"""

import shlex
import sys

from oslo_config import cfg
from oslo_log import log as logging
from oslo_privsep import priv_context

from cinder import objects
# Before Cinder 29 its drivers can't be imported without its objects.
objects.register_all()
# What registers the options that services have.
from cinder.common import config  # noqa: F401
from cinder import context
from cinder import coordination
from cinder import exception
from cinder.i18n import _
from cinder.lustre import capacity
from cinder.lustre import rates
from cinder import utils
from cinder import version
from cinder.volume import configuration
from cinder.volume.drivers import lustre
from cinder.volume import manager
from cinder.volume import volume_utils
import os_brick
from os_brick.remotefs import lustre as lustre_brick

CONF = cfg.CONF

_DRIVER = 'cinder.volume.drivers.lustre.LustreDriver'

_TO_EMPTY = _('is to be emptied')

# What may be wrong with one volume or share.
_FAILURES = (exception.CinderException, lustre_brick.Locked,
             lustre_brick.ShareUnavailable, OSError)


class Backend:
    """A back end of this host, as cinder-volume has it.

    :param name: its section in cinder.conf
    """

    def __init__(self, name):
        self._name = name
        conf = configuration.Configuration(manager.volume_backend_opts,
                                           config_group=name)
        self.is_ours = conf.volume_driver == _DRIVER
        self.driver = lustre.LustreDriver(configuration=conf, db=None)

    def volumes(self, share=None):
        """Yield the volumes that have files.

        :param share: the pool of the share that they are to be on
        """
        for volume in objects.VolumeList.get_all(context.get_admin_context()):
            backend = volume_utils.extract_host(volume.host or '') or ''
            pool = volume_utils.extract_host(volume.host or '', 'pool') or ''
            if (volume.provider_location
                    and backend.partition('@')[2] == self._name
                    and share in (None, capacity.split_pool(pool)[0])):
                yield volume


def show(backends, arguments):
    """Print the layout of the files of volumes.

    :returns: whether all of them could be looked at
    """
    is_done = True
    for backend in backends:
        for volume in backend.volumes():
            if arguments.volume and volume.id not in arguments.volume:
                continue
            layouts = _layouts(backend, volume)
            is_done = is_done and layouts is not None
            project = backend.driver.project_of(volume)
            for file, found in (layouts or {}).items():
                print('%s  %s  %s%s' % (
                    volume.id, file, found,
                    '' if project is None else '  project %d' % project))
    return is_done


def on(backends, arguments):
    """Print the volumes that have bytes on an OST.

    :returns: whether all of them could be looked at
    """
    return _each_on(backends, arguments, _print)


def empty(backends, arguments):
    """Move volumes off an OST.

    :returns: whether none is left there
    """
    for backend in backends:
        backend.driver.avoid_ost(arguments.share, arguments.ost, _TO_EMPTY)
    return _each_on(backends, arguments, _move)


def write_rates(backends, arguments):
    """Print what limits volumes on the servers as their QoS specs say.

    :returns: whether all volumes have a project to be limited by
    """
    volumes = [(volume, backend.driver.project_of(volume))
               for backend in backends for volume in backend.volumes()]
    for line in rates.commands((volume, project)
                               for volume, project in volumes if project):
        print(line)
    without = [volume.id for volume, project in volumes if not project]
    if without:
        print(_('Without a project (lustre_projects): %s')
              % ' '.join(without), file=sys.stderr)
    return not without


def _each_on(backends, arguments, work):
    """Call ``work(backend, volume)`` for volumes that are on an OST."""
    is_done = True
    for backend in backends:
        for volume in backend.volumes(arguments.share):
            layouts = _layouts(backend, volume)
            if layouts is None:
                is_done = False
            elif any(arguments.ost in found.osts
                     for found in layouts.values()):
                is_done = work(backend, volume) and is_done
    return is_done


def _print(backend, volume):
    print('%s  %s GiB  %s' % (volume.id, volume.size, volume.status))
    return True


def _move(backend, volume):
    try:
        if backend.driver.lay_out_anew(volume):
            print(_('%s  moved') % volume.id)
            return True
        print(_('%s  left where it is: it is attached') % volume.id)
    except _FAILURES as exc:
        print(_('%(id)s  left where it is: %(error)s') % {'id': volume.id,
                                                          'error': exc})
    return False


def _layouts(backend, volume):
    """Return the layouts of a volume's files, or None and say why."""
    try:
        return backend.driver.layouts(volume)
    except _FAILURES as exc:
        print(_('%(id)s  can not be looked at: %(error)s') % {
            'id': volume.id, 'error': exc}, file=sys.stderr)
        return None


def _add_commands(parsers):
    command = parsers.add_parser('show', help='the layout of volumes\' files')
    command.add_argument('volume', nargs='*', help='IDs; all without')
    command.set_defaults(run=show)
    command = parsers.add_parser('on', help='the volumes that are on an OST')
    _add_ost(command)
    command.set_defaults(run=on)
    command = parsers.add_parser('empty', help='move volumes off an OST')
    _add_ost(command)
    command.set_defaults(run=empty)
    command = parsers.add_parser(
        'rates', help='rules for Lustre\'s servers, of volumes\' QoS specs')
    command.set_defaults(run=write_rates)


def _add_ost(command):
    command.add_argument('share', help='the pool of the share, as in '
                                       '"cinder get-pools", without +...')
    command.add_argument('ost', type=int, help='its index')


def _backends(share=None):
    """Return this host's back ends of Lustre, ready.

    :param share: the pool of a share that they have to have
    """
    found = [backend for backend in map(Backend, CONF.enabled_backends or ())
             if backend.is_ours]
    for backend in found:
        backend.driver.do_setup(context.get_admin_context())
    having = [backend for backend in found
              if share in (None, *backend.driver.share_names())]
    if not having:
        raise exception.InvalidInput(reason=_(
            "no back end of enabled_backends has volume_driver=%(driver)s "
            "and share '%(share)s'; there are: %(shares)s") % {
                'driver': _DRIVER, 'share': share, 'shares': ' '.join(
                    name for backend in found
                    for name in backend.driver.share_names())})
    return having


def main():
    CONF.register_cli_opt(cfg.SubCommandOpt(
        'command', title='commands', handler=_add_commands))
    CONF(sys.argv[1:], project='cinder', version=version.version_string())
    logging.setup(CONF, 'cinder')
    priv_context.init(root_helper=shlex.split(utils.get_root_helper()))
    os_brick.setup(CONF)
    coordination.COORDINATOR.start()
    try:
        command = CONF.command
        backends = _backends(getattr(command, 'share', None))
        return 0 if command.run(backends, command) else 1
    except exception.CinderException as exc:
        print(exc, file=sys.stderr)
        return 2
    finally:
        coordination.COORDINATOR.stop()


if __name__ == '__main__':
    sys.exit(main())
