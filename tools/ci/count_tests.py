"""Counts the test cases of one `bazel test` run: count_tests.py BUILD_EVENT_JSON_FILE BAZEL_EXIT_STATUS

Bazel counts targets; this reads the report (test.xml) of every target that the run names, lists what failed and what
was skipped and why, and ends with the line `N passed, N failed, N skipped`. A target that failed to build, left no
report, reported no case, or failed although every case passed counts as one failure. Exits with 1 unless all passed.
"""

import json
import sys
import urllib.parse
import xml.etree.ElementTree as ElementTree

NO_TESTS_TO_RUN = 4


class Count:

  def __init__(self):
    self.passed = 0
    self.failed = 0
    self.skipped = 0

  def fail(self, what, why):
    self.failed += 1
    print(f'FAILED: {what}: {why}')

  def skip(self, what, why):
    self.skipped += 1
    print(f'SKIPPED: {what}: {why}')


def first_lines(element):
  """The message of a <failure> or <skipped>, without the source location that GoogleTest puts first."""
  lines = [line.strip() for line in (element.get('message') or element.text or '').splitlines() if line.strip()]
  if len(lines) > 1 and lines[0].rsplit(':', 1)[-1].isdigit():
    lines = lines[1:]
  return ' '.join(lines[:3]) or 'no reason given'


def count_report(count, label, path):
  """Counts the cases of one report and returns how many there are and how many failed."""
  failed_before = count.failed
  cases = 0
  for case in ElementTree.parse(path).getroot().iter('testcase'):
    if case.get('status') == 'notrun':  # Disabled, filtered, or in another shard.
      continue
    cases += 1
    name = f"{label} {case.get('classname', '')}.{case.get('name', '')}".replace(' .', ' ')
    failure = next((case.find(tag) for tag in ('failure', 'error') if case.find(tag) is not None), None)
    skip = case.find('skipped')
    if failure is not None:
      count.fail(name, first_lines(failure))
    elif skip is not None or case.get('result') == 'skipped':
      count.skip(name, first_lines(skip) if skip is not None else 'no reason given')
    else:
      count.passed += 1
  return cases, count.failed - failed_before


def count_target(count, label, result):
  files = {output['name']: output.get('uri', '') for output in result.get('testActionOutput', [])}
  path = urllib.parse.unquote(files.get('test.xml', '').removeprefix('file://'))
  log = urllib.parse.unquote(files.get('test.log', '').removeprefix('file://'))
  status = result.get('status', 'NO_STATUS')
  try:
    cases, failed = count_report(count, label, path)
  except (OSError, ElementTree.ParseError) as error:
    count.fail(label, f'{status}, and its report cannot be read: {error}; log: {log}')
    return
  if status not in ('PASSED', 'FLAKY') and not failed:
    count.fail(label, f'{status}, although its report names no failed case; log: {log}')
  elif cases == 0:
    count.fail(label, f'it ran no test case; log: {log}')
  elif failed:
    print(f'  log: {log}')


def main(events_path, bazel_status):
  tests = set()
  not_for_this_machine = set()
  results = {}
  with open(events_path, encoding='utf-8') as events:
    for line in events:
      event = json.loads(line)
      name = event['id']
      if 'targetConfigured' in name and ' rule' in event.get('configured', {}).get('targetKind', ''):
        if event['configured']['targetKind'].split(' ')[0].endswith('_test'):
          tests.add(name['targetConfigured']['label'])
      if 'testResult' in name and 'testResult' in event:
        key = (name['testResult']['label'], name['testResult'].get('shard', 0), name['testResult'].get('run', 0))
        results[key] = event['testResult']  # The last attempt.
      if 'targetCompleted' in name and event.get('aborted', {}).get('reason') == 'SKIPPED':
        not_for_this_machine.add(name['targetCompleted']['label'])
  count = Count()
  for (label, _, _), result in sorted(results.items(), key=lambda item: item[0]):
    count_target(count, label, result)
  for label in sorted(tests & not_for_this_machine):
    count.skip(label, 'its constraints (target_compatible_with) are not met on this machine')
  for label in sorted(tests - not_for_this_machine - {key[0] for key in results}):
    count.fail(label, 'it did not run; was it built?')
  if bazel_status not in (0, NO_TESTS_TO_RUN) and not count.failed:
    count.fail('the build', f'bazel ended with status {bazel_status}; see above')
  print(f'{count.passed} passed, {count.failed} failed, {count.skipped} skipped')
  return 1 if count.failed or not count.passed else 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1], int(sys.argv[2])))
