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
import shutil
import signal
import sys
import time

from tools.demo import main as demo_main
from tools.demo import procs
from tools.demo import report
from tools.demo import stack as demo_stack
from tools.nova_stack import config
from tools.nova_stack import stack


def main():
    arguments = demo_main.parse(sys.argv[1:])
    layout = config.Layout(os.environ['CINDER_LUSTRE_HOME'])
    shares = config.choose(layout)
    out = report.Report()
    if arguments.lock_fd is not None:
        os.set_inheritable(arguments.lock_fd, False)
    signal.signal(signal.SIGTERM, demo_main.stop)
    signal.signal(signal.SIGHUP, demo_main.stop)
    if arguments.stop:
        return demo_main.take_down(layout, shares, out)
    started = time.monotonic()
    if demo_stack.remains(layout) and demo_main.take_down(layout, shares, out):
        return 1
    shutil.rmtree(layout.log, ignore_errors=True)
    outcomes = None
    failed = False
    try:
        outcomes = run(layout, shares, out)
    except (demo_main.Stopped, KeyboardInterrupt):
        out.say('Stopped; taking everything down.')
    except (demo_stack.ServiceFailed, procs.CommandFailed) as exc:
        out.say('FAILED: %s' % exc, 'bold red')
        if isinstance(exc, demo_stack.ServiceFailed):
            demo_main.show_log(layout.log / (exc.name + '.log'), out)
    finally:
        if not arguments.keep:
            failed = demo_main.take_down(layout, shares, out)
    if outcomes is None:
        return 1
    return demo_main.summary(outcomes, time.monotonic() - started,
                             layout.log, out) or failed


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
    with demo_main.timed(out, 'Waiting for the compute hosts') as progress:
        run_of_steps = steps.Run(services, shares, progress)
    return demo_main.run_steps(run_of_steps, steps.STEPS, out,
                               demo_main.Logs(layout.log))


if __name__ == '__main__':
    sys.exit(main())
