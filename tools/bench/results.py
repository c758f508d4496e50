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

"""What was measured: medians, quartiles, ratios, and the goals."""

import collections
import statistics

from rich import box
from rich import table

# The operations for which the NFS driver does little but start processes.
QUICK = ('create', 'extend', 'snapshot', 'delete snapshot', 'delete')
TIMES_AS_FAST = 5
PROCESSES = 1
# Reports that differ by less than this count as equally fast.
SAME = 1.5


class Results:
    """All samples, by operation, variant and driver."""

    def __init__(self):
        self.rows = {}

    def add(self, driver, operation, variant, sample):
        row = self.rows.setdefault((operation, variant),
                                   collections.defaultdict(list))
        row[driver].append(sample)

    def plain(self):
        """All of it, as JSON has it."""
        return [{'operation': operation, 'variant': variant,
                 'times_as_fast': ratio(row),
                 'drivers': {driver: {
                     'seconds': [s.seconds for s in samples],
                     'median': median(samples),
                     'processes': [s.processes for s in samples]}
                     for driver, samples in row.items()}}
                for (operation, variant), row in self.rows.items()]

    def table(self):
        shown = table.Table(box=box.SIMPLE, pad_edge=False)
        for title, justify, style in (
                ('Operation', 'left', None), ('Of', 'left', None),
                *(column for driver in ('Lustre', 'NFS') for column in (
                    (driver + ', s', 'right', None),
                    ('quartiles', 'right', 'dim'),
                    ('proc.', 'right', None))),
                ('NFS / Lustre', 'right', 'bold'), ('n', 'right', 'dim')):
            shown.add_column(title, justify=justify, style=style,
                             no_wrap=True)
        for (operation, variant), row in self.rows.items():
            shown.add_row(
                operation, variant,
                *_cells(row['lustre']), *_cells(row['nfs']),
                '%.1f' % ratio(row), str(len(row['lustre'])))
        return shown

    def goals(self):
        """Each goal: whether it is met, what it is, and what was measured."""
        for (operation, variant), row in self.rows.items():
            if operation in QUICK:
                yield self._quick(operation, variant, row)
        stats = [row['lustre'] for (operation, _variant), row
                 in self.rows.items() if operation == 'stats']
        if len(stats) > 1:
            # The fastest: at a millisecond medians are half noise.
            growth = fastest(stats[-1]) / fastest(stats[0])
            yield (growth <= SAME,
                   'stats do not depend on the number of volumes',
                   '%.1f times as long with the most as with the fewest' %
                   growth)

    @staticmethod
    def _quick(operation, variant, row):
        started = processes(row['lustre'])
        fast, few = ratio(row), '?' if started is None else '%d' % started
        return (fast >= TIMES_AS_FAST and (started or 0) <= PROCESSES,
                '%s, %s: %d times as fast as NFS, at most %d process' % (
                    operation, variant, TIMES_AS_FAST, PROCESSES),
                '%.1f times, %s' % (fast, few))


def median(samples):
    return statistics.median(sample.seconds for sample in samples)


def fastest(samples):
    return min(sample.seconds for sample in samples)


def ratio(row):
    """How many times as long as ours the NFS driver takes."""
    return median(row['nfs']) / median(row['lustre'])


def processes(samples):
    """The median number of processes started; None if it is not known."""
    counts = [s.processes for s in samples]
    return None if None in counts else statistics.median_high(counts)


def _cells(samples):
    seconds = [sample.seconds for sample in samples]
    low, _median, high = (statistics.quantiles(seconds, method='inclusive')
                          if len(seconds) > 1 else seconds * 3)
    started = processes(samples)
    return (_number(statistics.median(seconds)),
            '%s-%s' % (_number(low), _number(high)),
            '?' if started is None else str(started))


def _number(seconds):
    return '%.3f' % seconds if seconds < 1 else '%.2f' % seconds
