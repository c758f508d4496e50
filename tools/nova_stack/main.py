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

"""Run the stack: shares and services up, the steps, everything down again."""

import os
import sys

from tools.demo import config as demo_config
from tools.demo import main as demo_main
from tools.demo import share
from tools.nova_stack import config
from tools.nova_stack import stack


def main():
    layout = config.Layout(os.environ['CINDER_LUSTRE_HOME'])
    return demo_main.deploy(layout, share.choose(layout), run, how_to_use)


def run(layout, shares, out):
    """Bring everything up and run the steps; returns how they went."""
    # Not before: these need the environment, which --stop does without.
    from tools.nova_stack import steps

    out.say(shares.about)
    services = stack.Stack(layout, shares)
    with demo_main.timed(out, 'Making the shares'):
        services.prepare()
        shares.create(services.user)
    with demo_main.timed(out, 'Starting the services') as progress:
        services.start(progress)
    write_openrc(layout, services)
    with demo_main.timed(out, 'Waiting for the compute hosts') as progress:
        run_of_steps = steps.Run(services, shares, progress)
    return demo_main.run_steps(run_of_steps, steps.STEPS, out,
                               demo_main.Logs(layout.log))


def write_openrc(layout, services):
    """What to source to use the clients' commands."""
    demo_config.write(layout.state / 'openrc', '\n'.join([
        'export PATH="%s:$PATH"' % (layout.venv / 'bin'),
        'export OS_IDENTITY_API_VERSION=3',
        'export OS_AUTH_URL=%s' % services.catalog()['identity'],
        'export OS_USERNAME=%s' % config.ADMIN,
        'export OS_PASSWORD=%s' % services.writer.password,
        'export OS_PROJECT_NAME=%s' % config.PROJECT,
        'export OS_USER_DOMAIN_NAME=Default',
        'export OS_PROJECT_DOMAIN_NAME=Default',
        '']), mode=0o600)


def how_to_use(layout):
    return demo_main.HOW_TO_USE.format(
        state=layout.state, etc=layout.etc, log=layout.log,
        home=layout.home.parent, script=demo_main.REPOSITORY / 'tools/nova.sh',
        examples='cinder list')


if __name__ == '__main__':
    sys.exit(main())
