# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""A stand-in for a Lustre client, for machines that have none.

README.md says what it imitates. The rooms:

    names.py         share names and NIDs: parse, compare
    state.py         what the sandbox remembers of each file system
    loops.py         image files and the loop devices over them
    mounts.py        the mount table, and mounting under a share's name
    osts.py          the one loop file system, seen as several OSTs
    layouts.py       which OSTs a file's bytes are said to be on
    faults.py        the fault switches
    hang.py          the file system that never answers
    mount_lustre.py  /sbin/mount.lustre
    lfs.py           /usr/bin/lfs, with what its commands have in common in
                     lfs_common.py, layouts in lfs_layouts.py, and
                     projects in lfs_quota.py
    install.py       puts these two in their places, and takes them away
    cli.py           the operator's command, lustre-sandbox
"""
