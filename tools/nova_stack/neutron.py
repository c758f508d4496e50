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

"""Say, as Neutron would, that there are no networks and no ports.

Servers have no network here, but Nova asks for their ports all the same. A
real Neutron would bring an agent, Open vSwitch and a network of its own.

Needs nothing but the standard library::

    python3 neutron.py PORT
"""

from http import server
import json
import sys


class Handler(server.BaseHTTPRequestHandler):

    def do_GET(self):
        path = self.path.partition('?')[0].rstrip('/').split('/')
        body = json.dumps(self._answer(*path[2:])).encode()
        self.send_response(200)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @staticmethod
    def _answer(collection='', *_):
        """What there is, as /v2.0/security-groups and /v2.0/quotas/PROJECT."""
        name = collection.removesuffix('.json').replace('-', '_')
        if name == 'quotas':
            # No limits. Nova asks where a server may have any network.
            return {'quota': {}}
        return {name: []}


if __name__ == '__main__':
    server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])),
                               Handler).serve_forever()
