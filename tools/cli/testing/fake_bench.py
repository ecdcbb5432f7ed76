#!/usr/bin/env python3
"""Stands for `shardproof bench` where a test must know the times: fake_bench.py bench [--plan FILE] --json FILE [..]

Writes one record for each of FAKE_CASES (default 12) keys: 100 us, times FAKE_SCALE (of the cases whose number is below
FAKE_SLOW, default all), times 1 + the plan's share, times log-normal noise of FAKE_NOISE (default 0.005), drawn from a
counter that lives in the file FAKE_COUNTER, so that a sequence of launches is the same each time.

FAKE_MODE: `usage` refuses its arguments, `crash` ends without results, `hang` sleeps, `wrong` reports a wrong result in
case 0, `throttled` says so in its conditions, `missing` leaves case 0 out.
"""

import json
import math
import os
import random
import sys
import time


def count():
  path = os.environ['FAKE_COUNTER']
  number = int(open(path, encoding='ascii').read()) if os.path.exists(path) else 0
  with open(path, 'w', encoding='ascii') as out:
    out.write(str(number + 1))
  return number


def record(i, us, verdict):
  r = {'case': 'collectives/all_reduce', 'variant': 'ring', 'backend': 'thread', 'ranks': 2, 'params': {'count': i},
       'verdict': verdict, 'reason': '' if verdict == 'passed' else '1 of 4 elements is wrong',
       'repro': '' if verdict == 'passed' else 'shardproof verify --filter x'}
  if verdict == 'passed':
    r['time_us'] = {'median': us, 'samples': 10, 'per_rank_median': [us, us]}
  return r


def main():
  arguments = sys.argv[1:]
  mode = os.environ.get('FAKE_MODE', '')
  launch = count()
  if mode == 'usage':
    print('shardproof: The following argument was not expected: --nonsense', file=sys.stderr)
    return 2
  if mode == 'crash':
    print('shardproof: rank 1 crashed', file=sys.stderr)
    return 6
  if mode == 'hang':
    time.sleep(600)
  shares = None
  if '--plan' in arguments:
    with open(arguments[arguments.index('--plan') + 1], encoding='utf-8') as file:
      shares = {line.split(' ', 1)[1].rstrip('\n'): float(line.split(' ', 1)[0]) for line in file}
  noise = random.Random(launch)
  records = []
  for i in range(int(os.environ.get('FAKE_CASES', '12'))):
    us = 100 * math.exp(noise.gauss(0, float(os.environ.get('FAKE_NOISE', '0.005'))))
    if i < int(os.environ.get('FAKE_SLOW', '1000')):
      us *= float(os.environ.get('FAKE_SCALE', '1'))
    key = f'collectives/all_reduce ring thread 2 count={i}'
    if shares is not None and key not in shares or mode == 'missing' and i == 0:
      continue
    us *= 1 + (shares or {}).get(key, 0)
    records.append(record(i, us, 'incorrect' if mode == 'wrong' and i == 0 else 'passed'))
  calm = {'load': 0.1, 'steal_share': 0, 'busy_share': 0, 'throttle_events': 0, 'mhz': 3000}
  result = {'schema': 1, 'command': 'bench', 'started': '2026-01-01T00:00:00Z', 'environment': {'host': 'fake'},
            'records': records, 'left_out': [],
            'conditions': {'before': calm, 'after': dict(calm, throttle_events=7 if mode == 'throttled' else 0)},
            'interrupted': False, 'finished': '2026-01-01T00:00:01Z', 'complete': True}
  with open(arguments[arguments.index('--json') + 1], 'w', encoding='utf-8') as out:
    json.dump(result, out)
  return 1 if mode == 'wrong' else 0


if __name__ == '__main__':
  sys.exit(main())
