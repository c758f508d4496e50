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

"""A server: QEMU with an attached volume as the disk that it boots from."""

import json
import subprocess

from tools.demo import procs
from tools.guest import console


class Server:
    """A guest that runs while the ``with`` statement does.

    QEMU gets what libvirt would give it for a disk of Nova's type nfs: the
    file and the format of the connection, no cache, native AIO.
    """

    def __init__(self, host, disk):
        self._process = subprocess.Popen(
            ['qemu-system-x86_64', '-nodefaults', '-no-user-config',
             # Emulated, so that it runs wherever this does.
             '-machine', 'pc,accel=tcg', '-m', '192', '-no-reboot',
             '-display', 'none', '-serial', 'stdio', *_disk_options(disk)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
            env=procs.marked_environment(host.layout.home),
            **procs.as_user(host.user))
        self.console = console.Console(self._process.stdout.fileno(),
                                       self._process.stdin.fileno())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.communicate()

    def write(self, slot, count):
        """Let the guest fill MiB of its disk; returns their SHA-256."""
        return self.console.ask('write', 'vda', slot, count)

    def sum(self, slot, count):
        """The SHA-256 of MiB of its disk, as the guest reads them."""
        return self.console.ask('sum', 'vda', slot, count)

    def power_off(self):
        self.console.ask('poweroff')
        self._process.wait(30)


def _disk_options(disk):
    storage = {'driver': 'file', 'filename': str(disk.path),
               'node-name': 'storage', 'aio': 'native',
               'cache': {'direct': True, 'no-flush': False}}
    image = {'driver': disk.format, 'file': 'storage', 'node-name': 'image',
             'cache': {'direct': True, 'no-flush': False}}
    return ('-blockdev', json.dumps(storage), '-blockdev', json.dumps(image),
            '-device', 'virtio-blk-pci,drive=image,bootindex=1')
