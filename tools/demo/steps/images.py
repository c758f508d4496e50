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

"""Images become volumes, and volumes images."""

from tools.demo import content
from tools.demo import host
from tools.demo import stage

STEPS = []
step = stage.adder(STEPS)

IMAGE_SIZE = 256 * stage.MIB


@step('Images in Glance')
def images(demo):
    disk = content.Content()
    disk.put(0, content.noise('image', 32))
    disk.put(IMAGE_SIZE - 16 * content.BLOCK, content.noise('end', 16))
    ids = []
    with demo.host.scratch() as raw, demo.host.scratch('.qcow2') as qcow2:
        disk.write_file(raw, IMAGE_SIZE)
        host.procs.run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', raw,
                       qcow2)
        for name, path in (('raw', raw), ('qcow2', qcow2)):
            ids.append(demo.api.create_image(name, path, name))
    demo.keep('images', ids)
    demo.keep('image-raw', ids[0])
    demo.keep('image-qcow2', ids[1])
    demo.keep('image-content', disk)
    return 'a disk of 256 MiB, uploaded as raw and as qcow2'


def image_to_volume(demo, image_format, type_name):
    image, disk = demo.need('image-' + image_format, 'image-content')
    volume = demo.create('image-to-' + type_name, type_name, imageRef=image,
                         disk_content=disk)
    with demo.host.attached(demo.api, volume) as attached:
        stage.expect_allocation(demo, attached, stage.TYPES[type_name][0],
                                stage.GIB)
    demo.write(volume, stage.GIB - 16 * content.BLOCK)
    return ('1 GiB; the checksum is that of the image; its end is writable')


def volume_to_image(demo, type_name, image_format):
    """With a snapshot, so that the disk is in more than one file."""
    volume, ids = demo.need('image-to-' + type_name, 'images')
    snapshot = demo.api.create_snapshot(volume, name='before-upload')
    demo.write(volume, 0)
    image = demo.api.volume_to_image(volume, 'from-' + type_name,
                                     image_format)
    ids.append(image)
    with demo.host.scratch('.' + image_format) as path:
        demo.api.download_image(image, path)
        checksum, size = demo.host.image_checksum(path, image_format)
    stage.expect(volume.size * stage.GIB, size,
                 'size of the disk in the image')
    stage.expect(volume.content.checksum(), checksum, 'checksum of the image')
    demo.api.delete_snapshots([snapshot])
    demo.take('image-to-' + type_name)
    demo.api.delete_volumes([volume])
    demo.expect_no_files_of(volume)
    return ('of a volume with a snapshot; downloaded again: 1 GiB, the '
            'checksum is that of the volume')


def reimage(demo):
    """As the rebuild of a server does that boots from the volume."""
    image, disk = demo.need('image-qcow2', 'image-content')
    volume = demo.create('rebuilt', 'thin-qcow2',
                         imageRef=demo.need('image-raw'), disk_content=disk)
    # Over the image, and where it has nothing but zeros.
    demo.write(volume, 0, 128 * stage.MIB, stage.GIB - 16 * content.BLOCK)
    demo.api.reimage(volume, image)
    volume.content = disk.copy()
    demo.verify(volume)
    demo.take('rebuilt')
    demo.api.delete_volumes([volume])
    return ('what was written since is gone, zeros included: 1 GiB, the '
            'checksum is that of the image')


for _image, _type in (('qcow2', 'thick-raw'), ('raw', 'thin-qcow2')):
    step('Image to volume: %s to %s' % (_image, _type.replace('-', ' ')),
         _image, _type)(image_to_volume)
for _type, _image in (('thick-raw', 'qcow2'), ('thin-qcow2', 'raw')):
    step('Volume to image: %s to %s' % (_type.replace('-', ' '), _image),
         _type, _image)(volume_to_image)
step('Fill a volume with its image anew (cinder reimage)')(reimage)
