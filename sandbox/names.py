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

"""Share names and NIDs.

A share is named ``<MGS NIDs>:/<fsname>[/<directory>]``. A colon separates the
nodes that may run the MGS, a comma the NIDs of one node; for finding the MGS
the difference does not matter here: any NID that is known will do.
"""

import dataclasses
import ipaddress
import re
import socket

FSNAME = re.compile(r'[A-Za-z0-9_-]{1,8}\Z')
# The network types LNet knows. Any other makes a NID unparsable.
NETWORK = re.compile(r'(tcp|o2ib|gni|gip|kfi|ptlf|bxi3?|lo)([0-9]*)\Z')


class BadNID(ValueError):
    """A NID that LNet can't parse, or a host that does not resolve."""


@dataclasses.dataclass(frozen=True)
class Share:
    source: str      # the name as the mount table shows it
    nids: tuple      # as written
    fsname: str      # empty for '<MGS>:/'
    directory: str   # below the file system's root, '' for the root


def parse(source):
    """The parts of a share's name; None for what is not a client's name."""
    mgs, separator, path = source.partition(':/')
    if not separator:
        return None
    fsname, _, directory = path.partition('/')
    nids = tuple(nid for nid in re.split('[:,]', mgs) if nid)
    return Share(source, nids, fsname, directory.strip('/'))


def shown(source):
    """The name as the mount table shows it.

    Addresses are NIDs in their usual form: a bare one gains '@tcp', and
    '@tcp0' becomes '@tcp'. Host names stay as they are.
    """
    mgs, separator, path = source.partition(':/')
    if not separator:
        return source
    words = re.split('([:,])', mgs)
    return ''.join(_usual(word) for word in words) + separator + path


def _usual(word):
    host = word.partition('@')[0]
    if not _is_address(host):
        return word
    try:
        return '%s@%s' % (host, network(word))
    except BadNID:
        return word      # check() will say what is wrong with it


def _is_address(host):
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def network(nid):
    """The network of a NID: 'tcp' for 'h', 'h@tcp' and 'h@tcp0'."""
    match = NETWORK.match(nid.partition('@')[2] or 'tcp')
    if not match:
        raise BadNID(nid)
    kind, number = match.groups()
    return kind if number.lstrip('0') == '' else kind + number.lstrip('0')


def spellings(nid):
    """The canonical forms of a NID: as written, and by its addresses."""
    host, net = nid.partition('@')[0], network(nid)
    return {'%s@%s' % (name, net) for name in {host} | _addresses(host)}


def _addresses(host):
    if _is_address(host):
        return {host}
    try:
        found = socket.getaddrinfo(host, None, socket.AF_INET)
    except (OSError, UnicodeError):
        return set()
    return {address[4][0] for address in found}


def check(nid, known):
    """Raise BadNID unless the NID parses and its host is an address.

    A host name that one of the known NIDs bears needs no name service.
    """
    own = spellings(nid)
    host = nid.partition('@')[0]
    if not (own & known or _is_address(host) or _addresses(host)):
        raise BadNID(nid)
    return own
