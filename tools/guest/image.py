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

"""Make a disk that a tiny guest boots from.

The guest is Debian's kernel for clouds, busybox and init.sh. Its disk is a
FAT file system from the first sector on, with syslinux as its boot loader, so
that neither partitions, nor a mount, nor root are needed to make it. It boots
from virtio or SCSI disks, with a BIOS, within some five seconds of a
processor that is emulated. What it understands is in console.py.

The kernel and busybox are downloaded with apt-get and unpacked, not
installed. Needed beside them: the packages syslinux and mtools.

Needs nothing but the standard library::

    python3 -m tools.guest.image PATH
"""

import gzip
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent

# How much of the disk is the guest's system; what lies behind is for data.
SYSTEM_MIB = 32

# What the guest needs for its disks, and to be told to stop by a button.
MODULES = ('virtio_pci', 'virtio_blk', 'virtio_scsi', 'sd_mod', 'button',
           'evdev')

# The guest has one processor and nobody to attack it.
SYSLINUX = '''\
DEFAULT guest
PROMPT 0
LABEL guest
KERNEL vmlinuz
INITRD initrd
APPEND console=ttyS0 loglevel=3 mitigations=off panic=-1
'''


class BuildFailed(Exception):
    """A command that makes the disk failed; what it said."""


def build(path):
    """Make the disk, a raw image of SYSTEM_MIB, and return its path.

    A volume that is made from it should be larger: the guest writes behind
    its system.

    :param path: where; a file that is there is replaced when all is done
    :raises BuildFailed: Debian's packages can't be had, or a tool is missing
    """
    path = pathlib.Path(path).resolve()
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        work = pathlib.Path(directory)
        debian = unpack(work)
        make_initramfs(debian, work / 'initrd')
        shutil.copy(next(debian.glob('boot/vmlinuz-*')), work / 'vmlinuz')
        (work / 'syslinux.cfg').write_text(SYSLINUX)
        make_disk(work / 'disk', [work / name for name in (
            'vmlinuz', 'initrd', 'syslinux.cfg')])
        (work / 'disk').replace(path)
    return path


def run(*command, cwd=None, stdin=None):
    """Run a command and return what it wrote to stdout, as bytes."""
    try:
        done = subprocess.run([str(word) for word in command], cwd=cwd,
                              input=stdin, capture_output=True, timeout=600)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise BuildFailed('%s: %s' % (command[0], exc)) from exc
    if done.returncode:
        raise BuildFailed('%s: exit %d: %s' % (
            command[0], done.returncode,
            done.stderr.decode(errors='replace')[-2000:]))
    return done.stdout


def download(work):
    run('apt-get', 'download', kernel_package(), 'busybox-static', cwd=work)


def kernel_package():
    """The package of the newest kernel, which another one depends on."""
    about = run('apt-cache', 'show', '--no-all-versions',
                'linux-image-cloud-amd64').decode()
    return re.search(r'^Depends: (linux-image-[^ ,]+)', about, re.M).group(1)


def unpack(work):
    """Download what the guest is made of; return where its files are."""
    try:
        download(work)
    except BuildFailed:
        # The lists of packages are missing, or older than the packages.
        run('apt-get', '-qq', 'update')
        download(work)
    root = work / 'debian'
    for package in work.glob('*.deb'):
        run('dpkg-deb', '--extract', package, root)
    return root


def make_initramfs(debian, path):
    """Pack busybox, the modules in their order, and our own program."""
    root = path.with_suffix('.root')
    for directory in ('bin', 'modules'):
        (root / directory).mkdir(parents=True)
    busybox = debian / 'bin/busybox'
    shutil.copy(busybox, root / 'bin')
    for number, module in enumerate(with_dependencies(debian)):
        shutil.copy(module, root / 'modules' / (
            '%02d-%s' % (number, module.name)))
    shutil.copy(HERE / 'init.sh', root / 'init')
    (root / 'init').chmod(0o755)
    names = '\n'.join(str(found.relative_to(root))
                      for found in sorted(root.rglob('*')))
    archive = run(busybox, 'cpio', '-o', '-H', 'newc', cwd=root,
                  stdin=names.encode())
    path.write_bytes(gzip.compress(archive, 1))


def with_dependencies(debian):
    """The files of the modules, each after those that it depends on.

    Modules say themselves what they need; the list that depmod would make of
    that is made when a kernel is installed.
    """
    files = {module_name(found): found for found in debian.rglob('*.ko')}
    ordered = {}

    def add(name):
        needs = re.search(rb'\0depends=([^\0]*)\0', files[name].read_bytes())
        for needed in needs.group(1).decode().split(','):
            if needed:
                add(needed.replace('-', '_'))
        ordered[name] = files[name]

    for name in MODULES:
        add(name)
    return ordered.values()


def module_name(path):
    return path.stem.replace('-', '_')


def make_disk(path, files):
    """Make the file system, with what belongs in it and a boot loader."""
    # As many heads and sectors as a BIOS says of a disk, and its type (-m):
    # Glance refuses what looks like a floppy disk of this size.
    run('mformat', '-C', '-i', path, '-T', SYSTEM_MIB * 2048, '-h', 64,
        '-s', 32, '-H', 0, '-m', 0xf8, '::')
    run('mcopy', '-i', path, *files, '::')
    run('syslinux', '--install', path)


if __name__ == '__main__':
    build(sys.argv[1])
