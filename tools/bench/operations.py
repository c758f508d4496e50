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

"""What is measured.

A scenario prepares what it needs on a service, repeats a row of steps, and
removes what it made. Steps of the two services alternate: each ``yield`` ends
a step and gives what it measured, (operation, variant, sample), or None.
"""

import contextlib
import os
import uuid

from tools.demo import procs

MIB = 1 << 20
GIB = 1 << 30


def fill(service, deployment, volume, mebibytes):
    """Write data that can't be compressed to a volume, as a guest would."""
    _sample, image = service.ask('where', volume=volume)
    procs.run('qemu-io', '-f', image['format'], '-c',
              'write -q -s %s 0 %dM' % (deployment.data, mebibytes),
              '-c', 'flush', image['path'], limit=300)


def make_data(deployment, mebibytes):
    with open(deployment.data, 'wb') as data:
        for _ in range(mebibytes):
            data.write(os.urandom(MIB))


class Scenario:
    operations = ()
    # How many times less often this is repeated than what is quick.
    weight = 1
    # How often it is done before it counts.
    warm_ups = 1

    def __init__(self, deployment, variant, options):
        self.deployment = deployment
        self.variant = variant
        self.options = options

    @property
    def title(self):
        return 'Measuring %s (%s)' % (', '.join(self.operations),
                                      self.variant)

    def prepare(self, service):
        return None

    def steps(self, service, prepared):
        raise NotImplementedError

    def finish(self, service, prepared):
        pass


class Life(Scenario):
    """An empty volume of 1 GiB and a snapshot of it."""

    operations = ('create', 'extend', 'snapshot', 'delete snapshot',
                  'delete')

    def steps(self, service, prepared):
        kind = self.variant
        sample, made = service.ask('create', kind=kind)
        yield 'create', kind, sample
        if kind != 'thick':
            # What the NFS driver adds to a thick volume is sparse.
            sample, _none = service.ask('extend', size=2, **made)
            yield 'extend', kind, sample
            sample, snapshot = service.ask('snapshot', **made)
            yield 'snapshot', kind, sample
            sample, _none = service.ask('delete_snapshot', **snapshot)
            yield 'delete snapshot', kind, sample
        sample, _none = service.ask('delete', **made)
        yield 'delete', kind, sample


class Copies(Scenario):
    """A volume from a snapshot with data, and a clone of that volume."""

    operations = ('from snapshot', 'clone')
    weight = 2

    def prepare(self, service):
        _sample, source = service.ask('create', kind=self.variant)
        fill(service, self.deployment, source['volume'],
             self.options.mebibytes)
        _sample, snapshot = service.ask('snapshot', **source)
        return source, snapshot

    def steps(self, service, prepared):
        _source, snapshot = prepared
        sample, copy = service.ask('from_snapshot', **snapshot)
        yield 'from snapshot', self.variant, sample
        sample, clone = service.ask('clone', **copy)
        yield 'clone', self.variant, sample
        for volume in clone, copy:
            service.ask('delete', **volume)
        yield None

    def finish(self, service, prepared):
        source, snapshot = prepared
        service.ask('delete_snapshot', **snapshot)
        service.ask('delete', **source)


class Stats(Scenario):
    """A report with so many volumes on the share.

    The volumes are sparse files of 1 GiB with a volume's name, made by no
    driver: both drivers look at the share only.
    """

    operations = ('stats',)

    def _directory(self, service):
        return self.deployment.whole / service.name

    def prepare(self, service):
        made = []
        for _ in range(self.variant):
            path = self._directory(service) / ('volume-%s' % uuid.uuid4())
            with open(path, 'wb') as volume:
                volume.truncate(GIB)
            made.append(path)
        return made

    def steps(self, service, prepared):
        sample, _none = service.ask('stats')
        yield 'stats', '%d volumes' % self.variant, sample

    def finish(self, service, prepared):
        for path in prepared:
            path.unlink()


class Backup(Scenario):
    """A backup of a thin raw volume with data, and its restoration."""

    operations = ('backup', 'restore')
    weight = 4
    # It takes far longer than what is done once only.
    warm_ups = 0
    kind = ''
    # Of the data of the options.
    part = 1

    @property
    def size(self):
        """GiB of the volume."""
        return 1

    def _create(self, service):
        _sample, made = service.ask('create', kind='raw')
        if self.size > 1:
            service.ask('extend', size=self.size, **made)
        return made

    def prepare(self, service):
        source = self._create(service)
        fill(service, self.deployment, source['volume'],
             self.options.mebibytes // self.part)
        return source

    def steps(self, service, prepared):
        variant = self.variant + self.kind
        sample, backup = service.ask('backup', compression=self.variant,
                                     **prepared)
        yield 'backup', variant, sample
        target = self._create(service)
        sample, _none = service.ask('restore', **backup, **target)
        yield 'restore', variant, sample
        service.ask('delete', **target)
        service.ask('delete_backup', **backup)
        yield None

    def finish(self, service, prepared):
        service.ask('delete', **prepared)


class LargeBackup(Backup):
    """The same of a volume that is mostly empty."""

    kind = ', large'
    part = 3

    @property
    def size(self):
        # Where zeros aren't compressed, the NFS driver's take space.
        return 4 if self.variant == 'none' else 20


def scenarios(deployment, options):
    """Every scenario that the options ask for, in order."""
    every = [
        *((Life, kind) for kind in ('raw', 'qcow2', 'thick')),
        *((Copies, kind) for kind in ('raw', 'qcow2')),
        # Last of the volumes: the NFS driver walks over all of them.
        *((Stats, count) for count in options.volumes),
        *((Backup, name) for name in options.compressions),
        *((LargeBackup, name) for name in options.compressions),
    ]
    return [kind(deployment, variant, options) for kind, variant in every
            if set(kind.operations) & set(options.operations)]


def run(scenario, services, repetitions, record):
    """Run a scenario, on all services by turns.

    :param record: called with service, operation, variant and sample
    """
    with contextlib.ExitStack() as made:
        prepared = {}
        for service in services:
            prepared[service] = scenario.prepare(service)
            made.callback(scenario.finish, service, prepared[service])
        for n in range(-scenario.warm_ups, repetitions):
            order = services if n % 2 else services[::-1]
            steps = {service: scenario.steps(service, prepared[service])
                     for service in order}
            for result in _by_turns(steps):
                if n >= 0:
                    record(*result)


def _by_turns(steps):
    while steps:
        for service, generator in list(steps.items()):
            try:
                measured = next(generator)
            except StopIteration:
                del steps[service]
            else:
                if measured:
                    yield (service.name, *measured)
