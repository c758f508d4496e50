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

"""Build the archive that is shipped for one release of OpenStack.

It is made of the commit that is checked out, never of files that are not
committed, and the same commit gives the same bytes: times are the commit's,
owners and modes are fixed, and tools/package/requirements.txt pins the tools.

The archive holds one directory of its own name:

    INSTALL.rst               what to do with the rest
    LICENSE
    MANIFEST                  commit, versions
    SHA256SUMS                of all other files
    certification.yaml        the last verdict on this release, if there is one
    cinder-lustre.conf.sample
    constraints.txt           versions that it was certified, or tested, with
    cinder_lustre-*.whl
    constraints-nova.txt      the same for Nova and our driver for it
    nova_lustre-*.whl
"""

import argparse
import gzip
import hashlib
import io
import os
import pathlib
import re
import string
import subprocess
import sys
import tarfile
import tempfile

from tools import wheels

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
CONSTRAINTS = pathlib.Path('tools/constraints')
RECORDS = pathlib.Path('certification')
TEMPLATE = pathlib.Path('tools/package/INSTALL.rst')
# The first line of each file of constraints.
SUBJECT = re.compile(r'# Constraints for (Cinder|Nova) (\d+) \((\d{4}\.\d)\)')
# The Python that a release of Cinder needs at least.
PYTHONS = {26: '3.9', 27: '3.10', 28: '3.10', 29: '3.11'}


class PackageError(Exception):
    """What is asked for can't be built; the message says why."""


class Commit:
    """The commit that is checked out in a repository."""

    def __init__(self, repository):
        self.repository = repository
        # Root may build in somebody's clone, which git would distrust.
        self._environment = {**os.environ, 'GIT_CONFIG_COUNT': '1',
                             'GIT_CONFIG_KEY_0': 'safe.directory',
                             'GIT_CONFIG_VALUE_0': str(repository)}
        self.id = self._git('rev-parse', '--verify', 'HEAD').decode().strip()
        self.time = int(self._git('log', '-1', '--format=%ct'))
        self.is_all = not self._git('status', '--porcelain')
        self.version = self._run(
            sys.executable, '-W', 'ignore', '-c', 'from pbr import packaging;'
            'print(packaging.get_version("cinder-lustre"))').decode().strip()

    def _git(self, *arguments):
        return self._run('git', *arguments)

    def _run(self, *command):
        result = subprocess.run(command, cwd=self.repository,
                                env=self._environment, capture_output=True)
        if result.returncode:
            raise PackageError('%s is not a clone that a package could be '
                               'made of: %s' % (
                                   self.repository,
                                   result.stderr.decode().strip()))
        return result.stdout

    def extract(self, directory):
        """Write the commit's files, with modes that no umask has changed."""
        archive = self._git('-c', 'tar.umask=0022', 'archive', '--format=tar',
                            self.id)
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(directory)
            for file in files:
                pathlib.Path(directory, file.name).chmod(file.mode)


class Release:
    """A release of OpenStack that there are constraints for."""

    def __init__(self, name, tree):
        self.name = name
        known = known_releases(tree)
        if name not in known:
            raise PackageError('There are constraints for %s, not for %s' % (
                ', '.join(sorted(known)), name))
        self.cinder, self.constraints = known[name]['Cinder']
        self.nova, self.nova_constraints = known[name]['Nova']
        self.python = PYTHONS[self.cinder]


def known_releases(tree):
    """Return what there are constraints for.

    Where the certification has some of its own, those count: their names are
    the later ones.

    :returns: for each release of OpenStack the number and the file of each
        service's constraints
    """
    releases = {}
    for file in sorted((tree / CONSTRAINTS).glob('*.txt')):
        with open(file) as lines:
            found = SUBJECT.match(lines.readline())
        if found:
            service, number, name = found.groups()
            releases.setdefault(name, {})[service] = (int(number), file)
    return releases


def contents(release, commit, tree, scratch):
    """Return the files of an archive, as bytes by name.

    :param tree: where the commit's files are
    :param scratch: a directory to build in
    """
    files = {
        'LICENSE': (tree / 'LICENSE').read_bytes(),
        'cinder-lustre.conf.sample': (
            tree / 'etc/cinder/cinder-lustre.conf.sample').read_bytes(),
        'constraints.txt': release.constraints.read_bytes(),
        'constraints-nova.txt': release.nova_constraints.read_bytes(),
    }
    record = tree / RECORDS / ('cinder-%d.yaml' % release.cinder)
    if record.exists():
        files['certification.yaml'] = record.read_bytes()
    for project in wheels.CINDER, wheels.NOVA:
        wheel = pathlib.Path(wheels.build(
            project, str(tree), str(scratch), PBR_VERSION=commit.version,
            SOURCE_DATE_EPOCH=str(commit.time)))
        files[wheel.name] = wheel.read_bytes()
    files['MANIFEST'] = manifest(release, commit).encode()
    files['INSTALL.rst'] = instructions(release, tree, commit.version,
                                        sorted(files)).encode()
    files['SHA256SUMS'] = checksums(files).encode()
    return files


def manifest(release, commit):
    return ('cinder-lustre: %s\ncommit: %s\nopenstack: %s\ncinder: %d\n'
            'nova: %d\n' % (commit.version, commit.id, release.name,
                            release.cinder, release.nova))


def instructions(release, tree, version, names):
    """Fill in the template."""
    text = (tree / TEMPLATE).read_text()
    # What the license says of the template stands before the first empty line.
    text = text.partition('\n\n')[2]
    found = {name.partition('-')[0]: name for name in names
             if name.endswith('.whl')}
    return string.Template(text).substitute(
        version=version, release=release.name, cinder=release.cinder,
        nova=release.nova, python=release.python,
        cinder_wheel=found['cinder_lustre'],
        nova_wheel=found['nova_lustre'])


def checksums(files):
    """Return what ``sha256sum --check`` reads."""
    return ''.join('%s  %s\n' % (hashlib.sha256(files[name]).hexdigest(), name)
                   for name in sorted(files))


def archive(name, files, time):
    """Return a compressed archive whose bytes depend on these only."""
    packed = io.BytesIO()
    # Without a name and a time in its header.
    with gzip.GzipFile(filename='', fileobj=packed, mode='wb',
                       mtime=0) as compressed:
        with tarfile.open(fileobj=compressed, mode='w',
                          format=tarfile.USTAR_FORMAT) as tar:
            directory = tarfile.TarInfo(name)
            directory.type = tarfile.DIRTYPE
            directory.mode, directory.mtime = 0o755, time
            tar.addfile(directory)
            for file in sorted(files):
                info = tarfile.TarInfo('%s/%s' % (name, file))
                info.mode, info.mtime = 0o644, time
                info.size = len(files[file])
                tar.addfile(info, io.BytesIO(files[file]))
    return packed.getvalue()


def build(release_name, output, repository=REPOSITORY):
    """Build a release's archive, and its checksum beside it.

    :param release_name: as ``2026.2``
    :param output: directory to write to
    :returns: the archive's path, and whether it has all that is in the tree
    :raises PackageError: there is no such release, or no commit
    """
    commit = Commit(repository)
    with tempfile.TemporaryDirectory() as scratch:
        tree = pathlib.Path(scratch, 'tree')
        tree.mkdir()
        commit.extract(tree)
        release = Release(release_name, tree)
        files = contents(release, commit, tree, pathlib.Path(scratch, 'work'))
    name = 'cinder-lustre-%s-%s' % (commit.version, release.name)
    path = pathlib.Path(output, name + '.tar.gz')
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = archive(name, files, commit.time)
    path.write_bytes(packed)
    path.with_name(path.name + '.sha256').write_text(
        checksums({path.name: packed}))
    return path, commit.is_all


def main():
    parser = argparse.ArgumentParser(
        prog='tools/package.sh',
        description='Build what is shipped for a release of OpenStack.')
    parser.add_argument('release', metavar='RELEASE',
                        help='of OpenStack, like 2026.2')
    parser.add_argument('--output', metavar='DIR', default='dist',
                        help='where to put it [dist]')
    args = parser.parse_args()
    try:
        path, is_all = build(args.release, args.output)
    except PackageError as exc:
        sys.exit('package.sh: %s' % exc)
    if not is_all:
        print('package.sh: what is not committed is not in it',
              file=sys.stderr)
    print(path)


if __name__ == '__main__':
    main()
