"""Reads what write_exports wrote with parsers that know nothing of it: check_exports.py FOLDER"""

import csv
import json
import os
import re
import sys
import xml.etree.ElementTree as ElementTree

FORMULA = '=+-@\t\r'
NUMBER = re.compile(r'[-+]?[0-9]')
METRIC = re.compile(r'[a-zA-Z_:][a-zA-Z0-9_:]*')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)')
VALUE = re.compile(r'NaN|[+-]Inf|-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?')


def hostile_strings(folder):
  with open(os.path.join(folder, 'hostile.hex'), encoding='ascii') as file:
    return [bytes.fromhex(line.strip()).decode('utf-8', 'replace') for line in file]


def read(path):
  with open(path, encoding='utf-8', errors='strict', newline='') as file:
    return file.read()


def count(suite, tag):
  return len(suite.findall(f'./testcase/{tag}'))


def check_junit(path, hostile):
  root = ElementTree.parse(path).getroot()
  assert root.tag == 'testsuites'
  suites = root.findall('testsuite')
  assert [s.get('name') for s in suites] == ['correctness', 'performance']
  names = set()
  for suite in suites:
    assert int(suite.get('tests')) == len(suite.findall('testcase'))
    for attribute, tag in (('failures', 'failure'), ('errors', 'error'), ('skipped', 'skipped')):
      assert int(suite.get(attribute)) == count(suite, tag), (suite.get('name'), tag)
    for test in suite:
      assert test.tag == 'testcase'
      name = (suite.get('name'), test.get('classname'), test.get('name'))
      assert None not in name and name not in names, name
      names.add(name)
      assert [child.tag for child in test if child.tag not in ('properties', 'failure', 'error', 'skipped')] == []
      assert sum(child.tag != 'properties' for child in test) <= 1
  for attribute in ('tests', 'failures', 'errors', 'skipped'):
    assert int(root.get(attribute)) == sum(int(s.get(attribute)) for s in suites)
  if hostile:
    # A parser gives every reason back, but for what XML cannot hold.
    forbidden = re.compile('[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]')
    messages = [e.get('message') for e in root.iter() if e.get('message') is not None]
    bodies = [e.text for e in root.iter() if e.tag in ('failure', 'error')]
    for text in hostile:
      wanted = forbidden.sub('\ufffd', text)
      assert any(m == wanted or m.endswith(': ' + wanted) for m in messages), wanted
    assert any('\nreproduce: ' in body for body in bodies)
    assert len(suites[0]) >= len(hostile) and len(suites[1]) >= len(hostile)
  return root


def check_csv(path):
  assert read(path).endswith('\r\n')
  with open(path, encoding='utf-8', newline='') as file:
    rows = list(csv.reader(file, strict=True))
  assert len({len(row) for row in rows}) == 1, path
  assert len(set(rows[0])) == len(rows[0])
  for row in rows:
    for cell in row:
      assert not (cell and cell[0] in FORMULA) or cell in ('-Inf',) or NUMBER.fullmatch(cell[:2]), cell
      if cell and cell[0] in '+-' and cell != '-Inf':
        float(cell)
      assert not re.search('[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]', cell), cell
  return [dict(zip(rows[0], row)) for row in rows[1:]]


def check_openmetrics(path):
  text = read(path)
  assert text.endswith('# EOF\n') and text.count('\n# EOF\n') + text.startswith('# EOF\n') == 1
  assert '\r' not in text and '\x00' not in text
  lines = text.split('\n')
  assert lines.pop() == '' and lines.pop() == '# EOF'
  families, samples, current = {}, [], None
  for line in lines:
    if line.startswith('# '):
      _, what, name, rest = line.split(' ', 3)
      assert METRIC.fullmatch(name) and what in ('TYPE', 'UNIT', 'HELP'), line
      if what == 'TYPE':
        assert name not in families and rest in ('gauge', 'info'), line
        families[name] = {'type': rest, 'seen': set()}
        current = name
      assert name == current and what not in families[name], line
      assert not families[name]['seen'], line
      families[name][what] = rest
      assert what != 'UNIT' or name.endswith('_' + rest), line
      continue
    match = re.fullmatch(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(.*)\})? ([^ ]+)', line)
    assert match, line
    name, _, labels, value = match.groups()
    family = families[current]
    assert name == current + ('_info' if family['type'] == 'info' else ''), line
    assert VALUE.fullmatch(value) and labels not in family['seen'], line
    family['seen'].add(labels)
    found, rest = {}, labels or ''
    while rest:
      label = LABEL.match(rest)
      assert label and label.group(1) not in found, (line, rest)
      found[label.group(1)] = label.group(2)
      rest = rest[label.end():]
    samples.append((name, found, float(value)))
  assert all(f['seen'] and 'HELP' in f for f in families.values())
  return samples


def check_summary(path):
  text = read(path)
  assert len(text.encode()) < 1 << 20
  assert '`' not in text and '\r' not in text and '\x00' not in text
  assert re.sub('</?code>', '', text).count('<') == 0
  # Outside of a reference, nothing that Markdown or HTML would act upon.
  plain = re.sub(r'&#[0-9]+;', '', text)
  assert '&' not in plain and 'javascript:' not in plain and 'http:' not in plain and 'www.' not in plain
  columns = 0
  for line in text.split('\n'):
    if not line.startswith('|'):
      columns = 0
      continue
    columns = columns or line.count('|')
    assert line.count('|') == columns and line.endswith('|'), line
  return text


def refuse(constant):
  raise ValueError(f'{constant} is not JSON')


def check_trace(path):
  trace = json.loads(read(path), parse_constant=refuse)
  named = set()
  for event in trace['traceEvents']:
    assert event['ph'] in ('X', 'M')
    if event['ph'] == 'M':
      named.add((event['name'], event['pid'], event['tid']))
      continue
    assert ('thread_name', event['pid'], event['tid']) in named
    assert ('process_name', event['pid'], 0) in named
    assert event['ts'] >= 0 and event['dur'] >= 0
  return trace


def main(folder):
  hostile = hostile_strings(folder)
  for name in ('typical', 'hostile', 'empty'):
    path = os.path.join(folder, name)
    junit = check_junit(path + '.xml', hostile if name == 'hostile' else [])
    records = check_csv(path + '.csv')
    comparisons = check_csv(path + '.comparisons.csv')
    samples = check_openmetrics(path + '.openmetrics')
    summary = check_summary(path + '.md')
    trace = check_trace(path + '.json')
    sizes = {'typical': (8, 7), 'hostile': (len(hostile), len(hostile)), 'empty': (0, 0)}[name]
    assert (len(records), len(comparisons)) == sizes, name
    assert summary.startswith('## ')
    if name == 'typical':
      assert [junit.get(a) for a in ('tests', 'failures', 'errors', 'skipped')] == ['16', '4', '3', '5']
      assert records[0]['param_count'] == '1024' and float(records[0]['median_us']) == 100
      assert comparisons[1]['change'] == 'regressed' and float(comparisons[1]['effect']) == 0.07
      median = [s for s in samples if s[0] == 'shardproof_median_seconds']
      assert len(median) == 2 and abs(median[0][2] - 1e-4) < 1e-18, median
      assert median[0][1]['case'] == 'collectives/all_reduce' and median[0][1]['variant'] == 'ring'
      assert sum(e['ph'] == 'X' for e in trace['traceEvents']) == 12
    if name == 'hostile':
      runs = [s[1]['file'] for s in samples if s[0] == 'shardproof_run_info']
      back = [re.sub(r'\\(.)', lambda m: '\n' if m.group(1) == 'n' else m.group(1), r) for r in runs]
      forbidden = re.compile('[\x00-\x08\x0b-\x1f\x7f]')
      assert back == [forbidden.sub('\ufffd', text) for text in hostile]
      assert sum(e['ph'] == 'X' for e in trace['traceEvents']) == 3 * len(hostile)
  print('exports: all read back')


if __name__ == '__main__':
  main(sys.argv[1])
