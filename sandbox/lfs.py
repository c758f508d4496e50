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

"""lfs: Lustre's command for users, as far as the sandbox imitates it.

Answers in the words of Lustre 2.17 and fails with its exit codes. Commands
that are not imitated exit 95, which no real one does.
"""

import errno
import pkgutil
import sys
import time

from sandbox import lfs_common
from sandbox import lfs_layouts
from sandbox import lfs_quota
from sandbox import osts
from sandbox import state

VERSION = 'lfs 2.17.57_62_gc881f8e'
# Those of the other commands were never recorded.
USAGES = ('df', 'setstripe', 'getstripe')


def main(arguments=None):
    arguments = sys.argv[1:] if arguments is None else arguments
    name = arguments[0] if arguments else ''
    if name in ('--version', '-V'):
        print(VERSION)
        return 0
    if name not in COMMANDS:
        print('lfs: %s: not imitated by the sandbox' % name, file=sys.stderr)
        return errno.EOPNOTSUPP
    try:
        return COMMANDS[name](arguments[1:]) or 0
    except lfs_common.Misused as misused:
        print(misused.words, file=sys.stderr)
        print(_usage(name), end='')
        return misused.code
    except lfs_common.Failed as failed:
        print(failed.words, file=sys.stderr)
        return failed.code


def _usage(command):
    if command not in USAGES:
        return ''
    return pkgutil.get_data('sandbox', 'usage/lfs-%s.txt' % command).decode()


# lfs df

def df(arguments):
    switches, words = lfs_common.options(
        arguments, 'hilNp:sv', 'human-readable', 'inodes', 'lazy',
        'no-header', 'only-summary', 'pool=')
    given = {_SHORT.get(name, name): value
             for name, value in switches.items()}
    pool = given.get('-p')
    shares = lfs_common.shares(words, 'df')
    if pool and not words and '.' in pool:
        shares = [share for share in shares
                  if share.fs.name == pool.partition('.')[0]]
    return max([_df_share(share, given, pool) for share in shares],
               default=0)


_SHORT = {'--human-readable': '-h', '--inodes': '-i', '--lazy': '-l',
          '--no-header': '-N', '--only-summary': '-s', '--pool': '-p'}
_HEADERS = {
    '-i': 'UUID                      Inodes       IUsed       IFree IUse%  '
          'Mounted on',
    '-h': 'UUID                       bytes        Used   Available Use%  '
          'Mounted on',
    None: 'UUID                   1K-blocks        Used   Available Use%  '
          'Mounted on',
}


def _df_share(share, given, pool):
    mdt, all_osts = osts.of_mount(share.fs, share.target)
    unit = '-i' if '-i' in given else '-h' if '-h' in given else None
    row = _Row(unit, '-h' in given, share.target)
    code, counted = 0, []
    if '-N' not in given:
        _say(_HEADERS[unit])
    if '-s' not in given:
        _say(row.of(mdt))
    for ost in _of_pool(share.fs, all_osts, pool):
        if _is_down(share.fs, ost) and '-l' in given:
            if not pool:
                _say('%s : Transport endpoint is not connected' % ost.uuid)
                code = errno.ENOTCONN
            continue
        _wait_for(share.fs.name, ost)
        counted.append(ost)
        if '-s' not in given:
            _say(row.of(ost))
    if '-s' not in given:
        _say('')
    _say(row.summary(mdt, counted))
    _say('')
    return code


def _say(line):
    # A caller that waits for the next line must have seen this one.
    print(line, flush=True)


def _of_pool(fs, all_osts, pool):
    """The active OSTs of a pool; none if there is no such pool."""
    members = range(fs.osts)
    if pool:
        members = fs.pools.get(pool.rpartition('.')[2], [])
    inactive = fs.faulty_osts('ost-inactive')
    return [ost for ost in all_osts
            if ost.index in members and ost.index not in inactive]


def _is_down(fs, ost):
    return ost.index in fs.faulty_osts('ost-down')


def _wait_for(fsname, ost):
    """Without --lazy the real one waits for an OST that is down."""
    while True:
        fs = state.load(fsname)
        if not fs or not _is_down(fs, ost):
            return
        time.sleep(0.2)


class _Row:
    """The lines of a table of lfs df."""

    def __init__(self, unit, human, target):
        self.unit, self.human, self.target = unit, human, target

    def of(self, target):
        numbers = self._numbers(target)
        return self._line(target.uuid, *numbers, '%s[%s:%d]' % (
            self.target, target.kind, target.index))

    def summary(self, mdt, counted):
        if self.unit == '-i':     # a file needs an inode of the MDT
            numbers = self._numbers(mdt)
        else:
            numbers = [sum(column) for column
                       in zip((0, 0), *map(self._numbers, counted))]
        return self._line('filesystem_summary:', *numbers, self.target)

    def _numbers(self, target):
        if self.unit == '-i':
            return target.files, target.files_used
        return target.total, target.used

    def _line(self, name, total, used, where):
        free = total - used
        percent = -(-used * 100 // total) if used else 0
        form = '%-20s %11s %11s %11s %3d%%  %s '
        columns = total, used, free
        if self.human:
            form = '%-20s %9s %9s %9s %3d%%  %s '
            start = 1 if self.unit == '-i' else 1024
            columns = [_human(number * start) for number in columns]
        return form % (name, *columns, percent, where)


def _human(number):
    for suffix in ' KMGTP':
        if number < 1024:
            break
        number /= 1024
    return ('%.1f%s' % (number, suffix)).rstrip()


# The other commands

def list_osts(arguments):
    words = lfs_common.options(arguments, '')[1]
    for share in lfs_common.shares(words, 'osts'):
        inactive = share.fs.faulty_osts('ost-inactive')
        print('OBDS:')
        for index in range(share.fs.osts):
            print('%d: %s-OST%04x_UUID %s' % (
                index, share.fs.name, index,
                'INACTIVE' if index in inactive else 'ACTIVE'))


def list_mdts(arguments):
    words = lfs_common.options(arguments, '')[1]
    for share in lfs_common.shares(words, 'mdts'):
        print('MDTS:\n0: %s-MDT0000_UUID ACTIVE' % share.fs.name)


def getname(arguments):
    switches, words = lfs_common.options(arguments, 'in', 'instance', 'fsname')
    shares = lfs_common.shares(words, 'getname')
    for share in shares:
        words_for = {'-n': share.fs.name, '--fsname': share.fs.name,
                     '-i': share.instance, '--instance': share.instance}
        name = ([words_for[switch] for switch in switches]
                or ['%s-%s' % (share.fs.name, share.instance)])[0]
        print(name if words else '%s %s' % (name, share.target))


def check(arguments):
    kind = arguments[0] if arguments else ''
    if kind not in ('osts', 'mds', 'mdts', 'mgts', 'all'):
        raise lfs_common.Misused("lfs check: unrecognized option '%s'" % kind)
    for share in lfs_common.all_shares():
        if kind in ('osts', 'all'):
            _check_osts(share)
        if kind in ('mds', 'mdts', 'all'):
            print('%s-MDT0000-mdc-%s active.' % (share.fs.name,
                                                 share.instance))
        if kind in ('mgts', 'all'):
            print('MGC%s active.' % share.fs.mgs[0])


def _check_osts(share):
    # The transcripts come from a node that is client and server at once,
    # so each OST is seen twice: by its MDT and by this client.
    for index in range(share.fs.osts):
        for client in 'MDT0000', share.instance:
            _check_ost(share.fs, index, '%s-OST%04x-osc-%s' % (
                share.fs.name, index, client))


def _check_ost(fs, index, device):
    if index in fs.faulty_osts('ost-down'):
        print("lfs check: error: check '%s': Resource temporarily "
              "unavailable (11)" % device, file=sys.stderr)
    elif index in fs.faulty_osts('ost-inactive'):
        # Not in the transcripts; the words of the other calls there.
        print("lfs check: error: check '%s': Cannot send after transport "
              "endpoint shutdown (108)" % device, file=sys.stderr)
    else:
        print('%s active.' % device)


def pool_list(arguments):
    words = lfs_common.options(arguments, '')[1]
    if not words:
        raise lfs_common.Misused('lfs pool_list: missing file system or pool')
    if words[0].startswith('/'):
        return _print_pools(lfs_common.share_of(words[0], 'pool_list').fs)
    fsname, _, pool = words[0].partition('.')
    mounted = [share.fs for share in lfs_common.all_shares()
               if share.fs.name == fsname]
    if not mounted:
        return errno.ENOENT     # without a word, as the real one
    if pool:
        return _print_pool(mounted[0], pool)
    return _print_pools(mounted[0])


def _print_pools(fs):
    print('Pools from %s:' % fs.name)
    for pool in sorted(fs.pools):
        print('%s.%s' % (fs.name, pool))


def _print_pool(fs, pool):
    print('Pool: %s.%s' % (fs.name, pool))
    if pool not in fs.pools:
        sys.stdout.flush()
        raise lfs_common.Failed(
            'lfs pool_list: cannot open /proc/fs/lustre/lov/%s-MDT0000-mdtlov/'
            'pools/%s: No such file or directory (2)' % (fs.name, pool),
            errno.ENOENT)
    for index in fs.pools[pool]:
        print('%s-OST%04x_UUID' % (fs.name, index))


COMMANDS = {'df': df, 'osts': list_osts, 'mdts': list_mdts,
            'getname': getname, 'check': check, 'pool_list': pool_list,
            'setstripe': lfs_layouts.setstripe,
            'getstripe': lfs_layouts.getstripe,
            'migrate': lfs_layouts.migrate,
            'project': lfs_quota.project, 'quota': lfs_quota.quota,
            'setquota': lfs_quota.setquota}


if __name__ == '__main__':
    sys.exit(main())
