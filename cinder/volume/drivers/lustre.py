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

"""Volumes as files on Lustre shares.

This is the contract with cinder-volume; what is done to files is done in
:mod:`cinder.lustre.images`, to mounts in :mod:`os_brick.remotefs.lustre`.

Every method that changes a volume's files or reads its chain holds the
distributed lock of each volume it touches. Methods that need two take both at
once, and :func:`cinder.coordination.synchronized` sorts them.
"""

import contextlib
import functools
import os

from oslo_config import cfg
from oslo_utils import units

from cinder import context
from cinder import coordination
from cinder.db import api as db
from cinder import exception
from cinder.i18n import _
from cinder.image import accelerator
from cinder.image import image_utils
from cinder import interface
from cinder.lustre import adoption
from cinder.lustre import capacity
from cinder.lustre import connections
from cinder.lustre import copies
from cinder.lustre import downloads
from cinder.lustre import encryption
from cinder.lustre import groups
from cinder.lustre import images
from cinder.lustre import locks
from cinder.lustre import moves
from cinder.lustre import online
from cinder.lustre import placement
from cinder.lustre import places
from cinder.lustre import projects
from cinder.lustre import releases
from cinder import objects
from cinder.privsep import lustre as privileged
from cinder.volume import configuration
from cinder.volume.drivers import remotefs
from cinder.volume import volume_utils
from os_brick.initiator.connectors import lustre as lustre_connector
from os_brick.remotefs import lustre as lustre_brick

# States of a volume whose snapshots come and go without Nova.
_AT_REST = ('available', 'backing-up', 'downloading', 'extending')

lustre_opts = [
    cfg.MultiStrOpt('lustre_shares',
                    default=[],
                    metavar='<MGS NIDs>:/<file system>[/<directory>] '
                            '[-o <mount options>]',
                    help='A Lustre share to keep volumes on; repeat the '
                         'option for each share. Each share is a pool of its '
                         'own, named by its file system and directory. Mount '
                         'options given here are used instead of '
                         'lustre_mount_options.'),
    cfg.StrOpt('lustre_shares_config',
               help='A file that lists the shares, one a line as in '
                    'lustre_shares, instead of that option: for a list that '
                    'a tool keeps. Empty lines and lines that start with # '
                    'are skipped.'),
    cfg.StrOpt('lustre_mount_point_base',
               default='$state_path/mnt',
               help='Directory of the mount points of Lustre shares. Use the '
                    'same one on all hosts that run Cinder services: one that '
                    'copies a volume looks for it where the service of the '
                    'volume has it.'),
    cfg.StrOpt('lustre_mount_options',
               default='flock',
               help='Mount options of Lustre shares. noflock and localflock '
                    'are refused: the locks that keep two hosts from writing '
                    'one image need flock.'),
    cfg.IntOpt('lustre_mount_attempts',
               default=3,
               min=1,
               help='How often to try to mount a share before its pool is '
                    'reported as down; a server that is just starting refuses '
                    'the first attempts. It is tried again with the next '
                    'report.'),
    cfg.IntOpt('lustre_mount_timeout',
               default=60,
               min=1,
               help='Seconds that one attempt to mount a share may take. An '
                    'MGS that does not answer would keep it waiting for '
                    'almost three minutes.'),
    cfg.IntOpt('lustre_operation_timeout',
               default=60,
               min=1,
               help='Seconds after which a call on a share is given up, and '
                    'the share counts as hung until the call returns. Copies '
                    'get one more second for every 8 MiB. If it is longer '
                    'than a failover of the servers takes, requests survive '
                    'one; if it is shorter, they fail sooner.'),
    cfg.IntOpt('lustre_stripe_count',
               min=-1,
               max=2000,
               help='How many OSTs each file of a volume is spread over; -1 '
                    'for all. Left alone, volumes of up to 1 TiB get the '
                    'default layout of the share\'s directory, larger ones a '
                    'progressive layout. This and the next three are '
                    'defaults for the extra specs of the same meaning '
                    '(lustre:stripe_count and so on), and for files made from '
                    'then on.'),
    cfg.StrOpt('lustre_stripe_size',
               help='How many bytes go to one OST before the next one\'s '
                    'turn: a multiple of 64K below 4G, for example 4M.'),
    cfg.StrOpt('lustre_pool',
               help='OST pool of the files of volumes, without the file '
                    'system\'s name.'),
    cfg.StrOpt('lustre_layout',
               metavar='-E <end> -c <count> ... -E -1 ...',
               help='Progressive layout of the files of volumes, in the '
                    'options -E, -c, -C, -S, -p and -L of lfs setstripe, '
                    'instead of lustre_stripe_count and lustre_stripe_size. '
                    'For example: -E 1G -c 1 -E -1 -c 4'),
    cfg.ListOpt('lustre_ost_pools',
                default=[],
                help='OST pools that are pools of the back end, named '
                     '<share\'s pool>+<OST pool>, instead of the shares '
                     'themselves: names, or all. Each share is taken to have '
                     'all of them.'),
    cfg.StrOpt('lustre_projects',
               metavar='<first>-<last>',
               help='Project IDs of Lustre that the files of volumes get, '
                    'for lfs quota -p: each volume has one of this range, by '
                    'its ID. Needs root on this host to be root for Lustre. '
                    'Left alone, files have the project of their directory.'),
    cfg.StrOpt('lustre_project_of',
               default='volume',
               choices=[('volume', 'each volume has a project ID'),
                        ('tenant', 'all volumes of a tenant have the same')],
               help='What has a project ID of its own.'),
    cfg.BoolOpt('lustre_project_limits',
                default=False,
                help='Whether Lustre limits the space of each volume, to what '
                     'its files may take at most. The limit follows when the '
                     'volume is extended or gets snapshots. Needs '
                     'lustre_projects, and lustre_project_of=volume.'),
    cfg.ListOpt('lustre_file_system_types',
                default=['lustre'],
                help='Types of mounted file systems that count as a share. '
                     'Anything but lustre is for tests without Lustre.'),
]

CONF = cfg.CONF
CONF.register_opts(lustre_opts, group=configuration.SHARED_CONF_GROUP)

lustre_connector.register(privileged)


@interface.volumedriver
class LustreDriver(adoption.AdoptionMixin, connections.ConnectionsMixin,
                   copies.CopiesMixin, groups.GroupsMixin, moves.MovesMixin,
                   online.OnlineMixin, placement.PlacementMixin,
                   projects.ProjectsMixin,
                   remotefs.RemoteFSSnapDriverDistributed):
    """Cinder driver for Lustre: raw and qcow2 files on mounted shares.

    Services of one cluster may work on the same shares (active-active): no
    state is kept here, and all that changes a volume's files holds the
    volume's distributed lock and a lock on the share. There is no replication,
    so nothing fails over but the work of a service.

    Version history:

    .. code-block:: none

        1.0.0 - Initial driver
    """

    VERSION = '1.0.0'
    CI_WIKI_NAME = 'Lustre_CI'
    SUPPORTS_ACTIVE_ACTIVE = True

    # Nova and os-brick know no type for Lustre, but their file shares mount
    # one if told so by the options (see initialize_connection).
    driver_volume_type = 'nfs'
    driver_prefix = 'lustre'
    volume_backend_name = 'Lustre'
    vendor_name = 'OpenSFS'

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.configuration.append_config_values(lustre_opts)
        self._shares = {}
        self._layout_defaults = {}
        self._projects = None
        self._client = None
        self._survey = None

    @classmethod
    def get_driver_options(cls):
        return lustre_opts + remotefs.nas_opts + remotefs.volume_opts

    # Starting

    def do_setup(self, context):
        """Read the configuration; shares are mounted with the first report.

        :raises InvalidConfigurationValue: naming the option and what is wrong
        """
        super().do_setup(context)
        releases.free_image_utils_from_eventlet()
        conf = self.configuration
        self._shares = self._configured_shares()
        self._layout_defaults = self._configured_layout()
        self._projects = self._configured_projects()
        self.base = conf.lustre_mount_point_base
        try:
            self._client = lustre_brick.ShareClient(
                self.base, privileged, conf.lustre_mount_options,
                conf.lustre_mount_attempts, conf.lustre_mount_timeout,
                conf.lustre_operation_timeout, conf.lustre_file_system_types)
        except lustre_brick.InvalidMountOptions as exc:
            raise exception.InvalidConfigurationValue(
                option='lustre_mount_options',
                value='%s (%s)' % (conf.lustre_mount_options, exc))
        self.base = self._client.mount_point_base
        self._survey = capacity.Survey(self._client,
                                       self._configured_ost_pools())

    def check_for_setup_error(self):
        """Make sure that what the driver needs is installed.

        A share that can't be mounted is no reason not to start: its pool is
        down, the others work.
        """
        images.check_qemu_img()

    def _configured_shares(self):
        option, lines = self._share_lines()
        shares = {}
        for line in lines:
            try:
                share = lustre_brick.Share.parse(line)
            except (lustre_brick.InvalidShare,
                    lustre_brick.InvalidMountOptions) as exc:
                raise exception.InvalidConfigurationValue(
                    option=option, value='%s (%s)' % (line, exc))
            name = capacity.pool_name(share)
            if name in shares:
                raise exception.InvalidConfigurationValue(
                    option=option, value=_(
                        "%(line)s (it has the same pool name, %(name)s, as "
                        "%(other)s: put it into a backend of its own)") % {
                            'line': line, 'name': name,
                            'other': shares[name]})
            shares[name] = share
        if not shares:
            raise exception.InvalidConfigurationValue(
                option=option, value=_("(no share)"))
        return shares

    def _share_lines(self):
        conf = self.configuration
        if not conf.lustre_shares_config:
            return 'lustre_shares', conf.lustre_shares
        if conf.lustre_shares:
            raise exception.InvalidConfigurationValue(
                option='lustre_shares_config', value=_(
                    "%s (lustre_shares is set too; use one of both)") %
                conf.lustre_shares_config)
        try:
            lines = self._read_config_file(conf.lustre_shares_config)
        except OSError as exc:
            raise exception.InvalidConfigurationValue(
                option='lustre_shares_config', value='%s (%s)' % (
                    conf.lustre_shares_config, exc.strerror))
        lines = [line.strip() for line in lines]
        return 'lustre_shares_config', [
            line for line in lines if line and not line.startswith('#')]

    # What the scheduler is told

    def _update_volume_stats(self):
        conf = self.configuration
        capacities = self._survey.take(self._shares)
        self._stats = {
            'volume_backend_name': (conf.safe_get('volume_backend_name')
                                    or self.volume_backend_name),
            'vendor_name': self.vendor_name,
            'driver_version': self.get_version(),
            'storage_protocol': self.driver_volume_type,
            'sparse_copy_volume': True,
            'pools': [self._pool(name, space)
                      for name, space in capacities.items()],
        }

    def _pool(self, name, space):
        return {
            'pool_name': name,
            'reserved_percentage': self.configuration.reserved_percentage,
            'max_over_subscription_ratio': (
                self.configuration.max_over_subscription_ratio),
            'thin_provisioning_support': True,
            'thick_provisioning_support': True,
            'online_extend_support': True,
            # Of volumes whose type asks for raw files, that is.
            'multiattach': True,
            'consistent_group_snapshot_enabled': True,
            'QoS_support': False,
            'provisioned_capacity_gb': self._provisioned(name),
            **space,
        }

    def _provisioned(self, pool):
        """Return how many GiB of volumes a pool has, as the database says.

        What isn't told here Cinder takes from a count of each service's own,
        which has no say where there are several, and which grows: volumes
        stay in it that were migrated away (VolumeManager.delete_volume, where
        use_quota is false) or deleted with their group (delete_group), until
        the pool looks too full for thick volumes.
        """
        admin = context.get_admin_context()
        sizes = [db.volume_data_get_for_host(
            admin, '%s#%s' % (host, pool))[1] for host in self._hosts(admin)]
        # MariaDB's sums are decimals, which would become strings on their way
        # to the scheduler.
        return int(sum(sizes))

    def _hosts(self, admin):
        """Those whose volumes are on our shares."""
        if not self.cluster_name:
            return [self.host]
        return [service.host for service in objects.ServiceList.get_all(
            admin, {'cluster_name': self.cluster_name})]

    def _init_vendor_properties(self):
        properties = {}
        self._set_property(
            properties, 'lustre:format', _('Image format'),
            _('Format of the image files of volumes. Thin volumes are qcow2 '
              'and thick ones raw unless this says otherwise.'),
            'string', enum=list(images.FORMATS))
        self._set_layout_properties(properties)
        return properties, 'lustre'

    def _init_standard_capabilities(self):
        # Cinder's scheduler reads this extra spec too, so it is not one of
        # the vendor's.
        properties = super()._init_standard_capabilities()
        self._set_property(
            properties, 'provisioning:type', _('Provisioning'),
            _('thin volumes take space as they are written to, thick ones '
              'take all of it at once.'),
            'string', enum=list(images.PROVISIONING),
            default=self.configuration.nas_volume_prov_type)
        return properties

    def secure_file_operations_enabled(self):
        """No file needs root: they belong to the service's user."""
        return True

    # Volumes

    @locks.volume_locked
    def create_volume(self, volume):
        """Make an empty volume.

        :returns: the share it is on, for the database
        """
        self._make(volume, images.VolumeImages.create)
        return {'provider_location': volume.provider_location}

    @coordination.synchronized('{self.driver_prefix}-{volume.id}',
                               '{self.driver_prefix}-{snapshot.volume.id}')
    def create_volume_from_snapshot(self, volume, snapshot):
        """Make a volume, as large or larger, with a snapshot's data."""
        self._validate_state(snapshot.status,
                             ['available', 'backing-up', 'restoring'],
                             'snapshot', exception.InvalidSnapshot)
        self._from_snapshot(volume, snapshot)
        return {'provider_location': volume.provider_location}

    @coordination.synchronized('{self.driver_prefix}-{volume.id}',
                               '{self.driver_prefix}-{src_vref.id}')
    def create_cloned_volume(self, volume, src_vref):
        """Make a volume, as large or larger, with another volume's data."""
        self._clone(volume, src_vref)
        return {'provider_location': volume.provider_location}

    @locks.volume_locked
    def delete_volume(self, volume):
        """Remove all files of a volume; fails if the share isn't there.

        :raises VolumeIsBusy: it has snapshots that Cinder does not manage
        """
        volume_images = self._images(volume)
        try:
            snapshot_ids = volume_images.snapshot_ids()
        except images.InvalidImage:
            # A damaged record keeps no volume from being deleted.
            snapshot_ids = []
        if not all(map(adoption.is_managed_snapshot, snapshot_ids)):
            raise exception.VolumeIsBusy(volume_name=volume.name)
        self._remove_second_names(volume)
        volume_images.remove()
        self._drop_limit(volume, self._place(volume))

    @classmethod
    def clean_volume_file_locks(cls, volume_id):
        """Remove the lock of a volume that is no more, if it is a file.

        The manager calls this. A lock in etcd or Redis goes by itself.
        """
        coordination.synchronized_remove(
            '%s-%s' % (cls.driver_prefix, volume_id))

    @locks.volume_locked
    def extend_volume(self, volume, size_gb):
        """Make a volume larger, in GiB.

        A raw one may be attached as long as it has no snapshots.
        """
        volume_images = self._images(volume)
        if not self._is_volume_attached(volume):
            volume_images.claim()
        elif volume_images.active().format != images.RAW:
            raise exception.ExtendVolumeError(reason=_(
                "volume %s is attached and its image is qcow2; detach it "
                "first") % volume.id)
        self._check_space(self._place(volume), volume,
                          (size_gb - volume.size) * units.Gi)
        self._follow_limit(volume, volume_images, size=size_gb)
        volume_images.grow(size_gb * units.Gi)

    def update_migrated_volume(self, ctxt, volume, new_volume,
                               original_volume_status):
        """Keep the files' names: a volume's files are found by name_id.

        Cinder goes on to swap what is recorded of the two volumes; but of a
        tenant's request (a retype) it leaves out what tenants can't read.
        """
        if not ctxt.is_admin:
            before, after = (self._recorded(volume),
                             self._recorded(new_volume))
            self._note(volume, **after)
            self._note(new_volume, **before)
        return {'_name_id': new_volume.name_id,
                'provider_location': new_volume.provider_location}

    def local_path(self, volume):
        """Return the path of the file with the volume's own name."""
        return os.path.join(self._local_volume_dir(volume), volume.name)

    # Images

    @locks.volume_locked
    def copy_image_to_volume(self, context, volume, image_service, image_id,
                             disable_sparse=False):
        """Fill a volume from an image; its file keeps its format."""
        volume_images = self._images(volume)
        volume_images.claim()
        with downloads.image(context, image_service, image_id, volume.size,
                             encryption.Key.of(volume)) as source:
            volume_images.import_image(source, volume.size * units.Gi)

    def copy_image_to_encrypted_volume(self, context, volume, image_service,
                                       image_id, disable_sparse=False):
        """Fill an encrypted volume from an image that isn't encrypted."""
        self.copy_image_to_volume(context, volume, image_service, image_id,
                                  disable_sparse)

    @locks.volume_locked
    def copy_volume_to_image(self, context, volume, image_service,
                             image_meta):
        """Upload what a guest sees of a volume."""
        self._refuse_attached(volume, _('upload'))
        volume_images = self._images(volume)
        volume_images.claim()
        disk_format = image_meta['disk_format']
        image_utils.check_image_conversion_disable(
            disk_format, images.RAW, image_meta['id'], upload=True)
        # What Cinder calls a raw image of an encrypted volume is LUKS.
        file_format = (encryption.LUKS if volume.encryption_key_id
                       else image_utils.fixup_disk_format(disk_format))
        with image_utils.temporary_file(prefix='lustre_upload_') as path:
            volume_images.export(path, file_format)
            if image_meta.get('container_format') == 'compressed':
                # Not by upload_volume(), which would guess the format of the
                # file first: a guest can write any header.
                accelerator.ImageAccel(path, path).compress_img(
                    run_as_root=False)
                image_meta = dict(image_meta, container_format='bare')
            volume_utils.upload_volume(context, image_service, image_meta,
                                       path, volume, run_as_root=False,
                                       volume_format=disk_format)

    # Snapshots

    def _create_snapshot(self, snapshot):
        volume = self._as_it_is_now(snapshot.volume)
        volume_images = self._images(volume)
        self._follow_limit(volume, volume_images, more=1)
        if self._is_volume_attached(volume):
            self._snapshot_attached(snapshot, volume_images)
        else:
            with self._at_rest(volume, volume_images):
                self._refuse_larger(volume_images.active(), snapshot,
                                    snapshot.volume_size)
                volume_images.add_overlay(snapshot.id)
        self._note_active_format(volume, images.QCOW2)

    def _delete_snapshot(self, snapshot):
        volume = self._as_it_is_now(snapshot.volume)
        volume_images = self._images(volume)
        self._refuse_while_read(volume, snapshot, volume_images)
        if volume.status == 'deleting':
            # Its volume goes next (cascade): there is nothing to merge. Of an
            # encrypted one the API has deleted the key by now.
            volume_images.claim()
            volume_images.forget(snapshot.id)
            return
        if not (self._is_volume_attached(volume)
                and self._delete_snapshot_attached(snapshot, volume_images)):
            with self._at_rest(volume, volume_images):
                volume_images.drop_overlay(snapshot.id)
        self._note_active_format(volume, volume_images.active().format)
        self._follow_limit(volume, volume_images)

    @locks.volume_locked
    def revert_to_snapshot(self, context, volume, snapshot):
        """Go back to the newest snapshot."""
        volume_images = self._images(volume)
        with self._at_rest(volume, volume_images, 'available', 'reverting'):
            volume_images.revert(snapshot.id)

    # How it is done

    @contextlib.contextmanager
    def _at_rest(self, volume, volume_images, *states):
        """Hold a volume's lock on the share, and see that nobody has it.

        In this order: while a service stands still its distributed lock may
        be lost, and somebody else may attach the volume; but for that the
        lock on the share is needed too.

        :raises InvalidVolume: it is in none of these states
        """
        with volume_images.locked():
            self._validate_state(self._as_it_is_now(volume).status,
                                 states or _AT_REST)
            volume_images.claim()
            yield

    def _make(self, volume, fill):
        """Choose share, format and provisioning, and make a volume's image.

        :param fill: called with the volume's images, format and bytes
        """
        share = self._share_of_host(volume)
        image_format, provisioning = self._wanted(volume)
        self._check_ost_pool(volume)
        place = self._place_on(share)
        self._check_space(place, volume, volume.size * units.Gi)
        with self._project_taken(volume, place, volume.size) as project:
            fill(images.VolumeImages(place, volume.name, image_format,
                                     provisioning, encryption.Key.of(volume),
                                     functools.partial(self._layout, volume),
                                     project),
                 image_format, volume.size * units.Gi)
        self._note(volume, format=image_format, base_format=image_format)
        # The manager saves this, with what else it has to save; until then
        # the volume is found by its pool.
        volume.provider_location = share.name

    def _copy(self, volume, source):
        if source.virtual_size > volume.size * units.Gi:
            raise exception.InvalidInput(reason=_(
                "volume %(id)s of %(size)s GiB is smaller than its source of "
                "%(bytes)s bytes") % {'id': volume.id, 'size': volume.size,
                                      'bytes': source.virtual_size})
        self._make(volume, lambda volume_images, image_format, size:
                   volume_images.copy(source, image_format, size))

    def _clone(self, volume, source):
        self._as_it_is_now(source)
        self._refuse_attached(source, _('clone'))
        source_images = self._images(source)
        with source_images.locked():
            source_images.claim()
            self._copy(volume, source_images.active())

    def _from_snapshot(self, volume, snapshot):
        source_images = self._images(snapshot.volume)
        with source_images.locked():
            self._copy(volume, source_images.snapshot(snapshot.id))

    def _check_space(self, place, volume, needed):
        """Refuse a thick volume that doesn't fit, before a byte is written."""
        available = place.available()
        if self._provisioning(volume) == images.THICK and needed > available:
            raise exception.VolumeDriverException(message=_(
                "Volume %(id)s does not fit on %(share)s: a thick volume "
                "needs %(needed)s bytes, %(available)s are available") % {
                    'id': volume.id, 'share': place.share,
                    'needed': needed, 'available': available})

    def _wanted(self, volume):
        """Return format and provisioning of a volume that is to be made."""
        provisioning = self._provisioning(volume)
        encrypted = bool(volume.encryption_key_id)
        default = images.RAW
        if encrypted or (provisioning == images.THIN
                         and not volume.multiattach):
            default = images.QCOW2
        image_format = self._extra_spec(volume, 'lustre:format', default,
                                        images.FORMATS)
        if encrypted and image_format != images.QCOW2:
            raise exception.InvalidVolumeType(reason=_(
                "volume type %s asks for encryption, which needs "
                "lustre:format=qcow2") % volume.volume_type.name)
        if volume.multiattach and image_format != images.RAW:
            raise exception.InvalidVolumeType(reason=_(
                "volume type %s asks for multiattach, which needs "
                "lustre:format=raw: two QEMUs can't write one qcow2 image") %
                volume.volume_type.name)
        return image_format, provisioning

    def _provisioning(self, volume):
        """Return the provisioning that a volume's type asks for.

        What else the type asks for may not fit the volume: what a retype has
        left to be deleted has its old files and its new type.
        """
        return self._extra_spec(volume, 'provisioning:type',
                                self.configuration.nas_volume_prov_type,
                                images.PROVISIONING)

    def _extra_spec(self, volume, spec, default, valid):
        value = self._extra_specs(volume).get(spec, default)
        if value not in valid:
            raise exception.InvalidVolumeType(reason=_(
                "extra spec %(spec)s of volume type %(type)s is '%(value)s', "
                "not %(valid)s") % {
                    'spec': spec, 'type': volume.volume_type.name,
                    'value': value, 'valid': ' or '.join(valid)})
        return value

    @staticmethod
    def _extra_specs(volume):
        volume_type = volume.volume_type
        return volume_type.extra_specs or {} if volume_type else {}

    def _images(self, volume):
        """Return the volume's images, on a share that is really mounted.

        :raises ShareUnavailable: it isn't
        """
        place = self._place(volume)
        place.available()
        return images.VolumeImages(place, volume.name,
                                   self._recorded_format(volume),
                                   self._provisioning(volume),
                                   encryption.Key.of(volume),
                                   functools.partial(self._layout, volume),
                                   self.project_of(volume))

    def _place(self, volume):
        """Find the share that a volume is on.

        By file system and directory, so that it is found when the MGS list
        has changed since. A volume whose creation was interrupted has no
        location yet; the scheduler has chosen its pool all the same.
        """
        if not volume.provider_location:
            return self._place_on(self._share_of_host(volume))
        share = self._share_named(volume.provider_location)
        return self._place_on(self._share_of_pool(
            capacity.pool_name(share), volume))

    @staticmethod
    def _share_named(name):
        return lustre_brick.Share.parse(name.replace(' ', '\\040'))

    def _share_of_host(self, volume):
        return self._share_of_pool(
            volume_utils.extract_host(volume.host, 'pool'), volume)

    def _share_of_pool(self, pool, volume):
        pool, _ost_pool = capacity.split_pool(pool)
        if pool not in self._shares:
            raise exception.VolumeDriverException(message=_(
                "Volume %(id)s is on share %(pool)s, which is not configured "
                "(lustre_shares)") % {'id': volume.id, 'pool': pool})
        return self._shares[pool]

    def _place_on(self, share):
        open_to_all = (self.configuration.nas_secure_file_permissions
                       == 'false')
        return places.Place(
            share, self._client, privileged, 0o666 if open_to_all else 0o660,
            self._survey.useless_osts(capacity.pool_name(share)))

    def _local_volume_dir(self, volume):
        return self._place(volume).directory

    def _get_mount_point_for_share(self, path):
        return self._client.mount_point(self._share_named(path))

    @staticmethod
    def _as_it_is_now(volume):
        """Load a volume anew, now that its lock is held.

        Cinder has loaded it when the request came. Another request may have
        attached or extended it while this one waited for the lock.
        """
        volume.refresh()
        return volume

    @staticmethod
    def _refuse_larger(image, resource, size):
        """Refuse an image that is larger than what it is of, in GiB."""
        if image.virtual_size > size * units.Gi:
            raise exception.InvalidVolume(reason=_(
                "image %(image)s has %(bytes)s bytes, which is more than the "
                "%(size)s GiB of %(type)s %(id)s; if an extension was "
                "interrupted, repeat it, and then this") % {
                    'image': image.file, 'bytes': image.virtual_size,
                    'size': size, 'type': resource.obj_name().lower(),
                    'id': resource.id})

    def _refuse_attached(self, volume, what):
        if self._is_in_use(volume):
            raise exception.InvalidVolume(reason=_(
                "volume %(id)s is attached, and a guest may be writing to "
                "it: detach it first, or take a snapshot and %(what)s that") %
                {'id': volume.id, 'what': what})

    def _recorded_format(self, volume):
        return self._admin_metadata(volume).get('base_format')

    def _recorded(self, volume):
        """Return what is recorded of a volume's files."""
        metadata = self._admin_metadata(volume)
        return {key: metadata.get(key, '')
                for key in ('format', 'base_format', projects.NOTE)}

    @staticmethod
    def _admin_metadata(volume):
        """Return a volume's admin metadata.

        An object of a tenant's request may have none, as if there were none:
        Cinder has looked before us.
        """
        if volume._context.is_admin:
            return volume.admin_metadata
        return db.volume_admin_metadata_get(volume._context.elevated(),
                                            volume.id)

    def _note_active_format(self, volume, image_format):
        """Note the active image's format, for those who read it there.

        A volume that was made as qcow2 never has an image of another format.
        """
        if self._recorded_format(volume) != images.QCOW2:
            self._note(volume, format=image_format)

    @staticmethod
    def _note(volume, **admin_metadata):
        """Add to a volume's admin metadata.

        Only this: Volume.save() would also put back what the object has had
        since the operation began, and an attachment may have changed it.
        """
        with volume.obj_as_admin():
            volume.admin_metadata = db.volume_admin_metadata_update(
                volume._context, volume.id, admin_metadata, False)
            volume.obj_reset_changes(['admin_metadata'])
