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

"""Bytes that a guest or a user makes to mislead who reads them.

Every maker returns the start of a disk or a whole image. Those that name
another file name one that must never be opened.
"""

import array
import ctypes
import fcntl
import gzip
import io
import json
import os
import struct
import subprocess
import tempfile
import termios
import zlib

_IN_ACCESS, _IN_MODIFY, _IN_OPEN = 0x1, 0x2, 0x20

_CLUSTER = 1 << 16
_PER_TABLE = _CLUSTER // 8 * _CLUSTER       # bytes of a second-level table
_EXTERNAL_DATA, _CORRUPT = 1 << 2, 1 << 1
_DATA_FILE_NAME, _BACKING_FORMAT = 0x44415441, 0xE2792ACA


class Bait:
    """A file that nobody must open, and the watch over it.

    :ivar path: the file's
    """

    def __init__(self, path):
        self.path = path
        with open(path, 'wb') as f:
            f.write(b'the bait ' * 1000)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._watch = self._libc.inotify_init1(0)
        if self._libc.inotify_add_watch(
                self._watch, os.fsencode(path),
                _IN_OPEN | _IN_ACCESS | _IN_MODIFY) < 0:
            raise OSError(ctypes.get_errno(), 'inotify_add_watch')

    def taken(self):
        """Tell whether anybody has opened the file since the last call."""
        waiting = array.array('i', [0])
        fcntl.ioctl(self._watch, termios.FIONREAD, waiting)
        if waiting[0]:
            os.read(self._watch, waiting[0])
        return bool(waiting[0])

    def close(self):
        os.close(self._watch)


def qcow2(size=1 << 30, backing=None, backing_format='raw', data_file=None,
          incompatible=0, version=3, l1_size=2, encryption=0):
    """A qcow2 header, and a whole image where what it says is possible."""
    extensions = []
    if backing:
        extensions.append((_BACKING_FORMAT, backing_format.encode()))
    if data_file:
        incompatible |= _EXTERNAL_DATA
        extensions.append((_DATA_FILE_NAME, data_file.encode()))
    extra = b''.join(
        struct.pack('>II', kind, len(data)) + data + bytes(-len(data) % 8)
        for kind, data in extensions) + bytes(8)
    start = 104 if version == 3 else 72
    if version == 2:
        extra = bytes(8)
    name = os.fsencode(backing or '')
    header = struct.pack(
        '>4sIQIIQIIQQIIQ', b'QFI\xfb', version,
        start + len(extra) if backing else 0, len(name), 16, size,
        encryption, l1_size, 3 * _CLUSTER, _CLUSTER, 1, 0, 0)
    if version == 3:
        header += struct.pack('>QQQII', incompatible, 0, 0, 4, 104)
    # Four clusters are in use: the header, the table of the blocks of
    # reference counts, one of these, and the first-level table.
    return b''.join(part.ljust(_CLUSTER, b'\0') for part in (
        header + extra + name, struct.pack('>Q', 2 * _CLUSTER),
        struct.pack('>4H', 1, 1, 1, 1), b''))


def qcow2_bomb(size=1 << 28):
    """All guest clusters are one compressed cluster of a few bytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -12)
    packed = packer.compress(b'\x41' * _CLUSTER) + packer.flush()
    image = bytearray(qcow2(size, l1_size=-(-size // _PER_TABLE)).ljust(
        6 * _CLUSTER, b'\0'))
    image[5 * _CLUSTER:5 * _CLUSTER + len(packed)] = packed
    # A compressed cluster's entry: bit 62, its sectors less one from bit 54.
    entry = (1 << 62 | (len(packed) - 1) // 512 << 54 | 5 * _CLUSTER)
    image[3 * _CLUSTER:3 * _CLUSTER + 8] = struct.pack(
        '>Q', 1 << 63 | 4 * _CLUSTER)
    image[4 * _CLUSTER:5 * _CLUSTER] = struct.pack('>Q', entry) * (
        _CLUSTER // 8)
    return bytes(image)


def vmdk(extent):
    """The text of a VMDK whose data is in another file."""
    return ('# Disk DescriptorFile\nversion=1\nCID=fffffffe\n'
            'parentCID=ffffffff\ncreateType="monolithicFlat"\n\n'
            '# Extent description\nRW 2048 FLAT "%s" 0\n\n'
            '# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = "4"\n'
            'ddb.geometry.cylinders = "2"\nddb.geometry.heads = "16"\n'
            'ddb.geometry.sectors = "63"\nddb.adapterType = "ide"\n'
            % extent).encode().ljust(1 << 16, b'\n')


def luks():
    """The header of LUKS, version 1."""
    return (b'LUKS\xba\xbe\0\x01' + b'aes'.ljust(32, b'\0') +
            b'xts-plain64'.ljust(32, b'\0') + b'sha256'.ljust(32, b'\0') +
            struct.pack('>II', 4096, 64)).ljust(_CLUSTER, b'\0')


def gpt(start=b''):
    """A partition table, after the start of something else."""
    image = bytearray(start.ljust(_CLUSTER, b'\0'))
    image[446:462] = struct.pack('<8B2I', 0, 0, 2, 0, 0xEE, 255, 255, 255, 1,
                                 (1 << 21) - 1)
    image[510:512] = b'\x55\xaa'
    image[512:520] = b'EFI PART'
    return bytes(image)


def iso(start=b''):
    """The descriptor of an ISO 9660 file system, after something else."""
    image = bytearray(start.ljust(_CLUSTER, b'\0'))
    image[0x8000:0x8006] = b'\x01CD001'
    image[0x8006:0x8007] = b'\x01'
    image[0x8800:0x8807] = b'\xffCD001\x01'
    return bytes(image)


def made(image_format, size='64M', *options):
    """What qemu-img makes."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, 'made')
        subprocess.run(['qemu-img', 'create', '-q', '-f', image_format,
                        *options, path, size], check=True)
        with open(path, 'rb') as f:
            return f.read()


def gzip_bomb(size):
    """A few KiB that unpack to so many bytes."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode='wb', compresslevel=1) as f:
        for _piece in range(size >> 20):
            f.write(bytes(1 << 20))
    return packed.getvalue()


def json_name(path, driver='raw'):
    """A file's name as QEMU's block layer takes it."""
    return 'json:' + json.dumps({'driver': driver, 'file': {
        'driver': 'file', 'filename': path}})


def headers(bait):
    """What a guest may write to the start of its disk, by name."""
    return {
        'qcow2': qcow2(),
        'qcow2, backing file': qcow2(backing=bait),
        'qcow2 v2, backing file': qcow2(backing=bait, version=2),
        'qcow2, backing file by JSON': qcow2(backing=json_name(bait)),
        'qcow2, data file': qcow2(data_file=bait),
        'qcow2, data file by JSON': qcow2(data_file=json_name(bait)),
        'qcow2, 4 EiB': qcow2(size=1 << 62),
        'qcow2, huge first-level table': qcow2(size=1 << 50,
                                               l1_size=0x7fffffff),
        'qcow2, unknown feature': qcow2(incompatible=1 << 63),
        'vmdk, extent': vmdk(bait),
        'vmdk': made('vmdk'),
        'vhdx': made('vhdx')[:1 << 21],
        'luks': luks(),
        'iso': iso(),
        'gpt': gpt(),
        'gpt and iso': iso(gpt()),
        'qcow2, backing file, and iso': iso(qcow2(backing=bait)),
        # The partition table is where a long backing file's name may be.
        'qcow2 and gpt and iso': iso(gpt(qcow2())),
    }
