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

"""Counts the processes that a service starts, by what the kernel tells.

The kernel's process connector reports every fork and every exit on the
machine, to root. From these follows which processes descend from a service,
however they detach themselves: sudo, rootwrap, what rootwrap starts, and the
privileged daemon with all it starts. Threads are not counted.
"""

import os
import socket
import struct

_NETLINK_CONNECTOR = 11
_CN_IDX_PROC = 1
_SO_RCVBUFFORCE = 33
_LISTEN = 1
_FORK, _EXIT = 0x1, 0x80000000

_NLMSG = struct.Struct('=IHHII')
_CN_MSG = struct.Struct('=IIIIHH')
_EVENT = struct.Struct('=IIQ')
_PIDS = struct.Struct('=iiii')


class Unavailable(Exception):
    """The kernel doesn't tell: an old one, or a container's namespace."""


class Tree:
    """The processes that descend from those added as roots."""

    def __init__(self):
        try:
            self._socket = self._listen()
        except OSError as exc:
            raise Unavailable('the process connector: %s' % exc.strerror)
        self._owner = {}
        self._started = []

    @staticmethod
    def _listen():
        listener = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM,
                                 _NETLINK_CONNECTOR)
        # Room for all that a busy machine does in the longest of calls.
        listener.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
        listener.bind((0, _CN_IDX_PROC))
        listener.settimeout(2)
        order = struct.pack('=I', _LISTEN)
        message = _CN_MSG.pack(_CN_IDX_PROC, 1, 0, 0, len(order), 0) + order
        listener.send(_NLMSG.pack(_NLMSG.size + len(message), 3, 0, 0,
                                  os.getpid()) + message)
        # In a container's namespaces nothing ever comes.
        listener.recv(4096)
        listener.setblocking(False)
        return listener

    def add(self, pid, owner):
        """Count what this process and its descendants start for an owner."""
        self._read()
        self._owner[pid] = owner

    def count(self, owner, began, ended):
        """How many processes were started, between two times (ns)."""
        self._read()
        count = sum(began <= when <= ended and whose == owner
                    for when, whose in self._started)
        self._started = [(when, whose) for when, whose in self._started
                         if when > ended]
        return count

    def _read(self):
        """Take note of what has happened, in the order of time."""
        events = []
        while True:
            try:
                data = self._socket.recv(4096)
            except BlockingIOError:
                break
            except OSError as exc:
                # ENOBUFS: the kernel had to drop events.
                raise Unavailable('the process connector: %s' % exc.strerror)
            offset = _NLMSG.size + _CN_MSG.size
            what, _cpu, when = _EVENT.unpack_from(data, offset)
            if what in (_FORK, _EXIT):
                events.append((when, what, *_PIDS.unpack_from(
                    data, offset + _EVENT.size)))
        for event in sorted(events):
            self._note(*event)

    def _note(self, when, what, first_pid, first_tgid, child_pid, child_tgid):
        if what == _EXIT:
            if first_pid == first_tgid:
                self._owner.pop(first_pid, None)
        elif child_pid == child_tgid and first_tgid in self._owner:
            owner = self._owner[child_tgid] = self._owner[first_tgid]
            self._started.append((when, owner))
