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

"""Certify: the stack up, the suites, everything down, and the bundle."""

import os
import sys

from tools.certify import command
from tools.certify import config
from tools.demo import main as demo_main
from tools.demo import report


def main():
    arguments = command.parse(sys.argv[1:])
    layout = config.Layout(os.environ['CINDER_LUSTRE_HOME'])
    shares = config.choose(layout)
    out = report.Report()
    runs = []

    def run():
        # Not before: it needs the environment, which --stop does without.
        from tools.certify import certification
        from tools.certify import stock

        room = stock if arguments.stock else certification
        runs.append(room.Certification(arguments, layout, shares, out))
        return runs[0].test()

    def conclude(tests, why):
        return runs[0].conclude(why)

    return demo_main.serve(arguments, layout, shares, out, run, conclude,
                           how_to_use)


def how_to_use(layout):
    return demo_main.HOW_TO_USE.format(
        state=layout.state, etc=layout.etc, log=layout.log,
        home=layout.home.parent,
        script=demo_main.REPOSITORY / 'tools/certify.sh',
        examples='openstack volume list')


if __name__ == '__main__':
    sys.exit(main())
