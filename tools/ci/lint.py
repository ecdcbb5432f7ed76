"""Runs clang-tidy on our .cc files: lint.py [FILE...]. Exits with 1 if it finds anything.

Reads compile_commands.json (compile_commands.py writes it). Warnings in our headers are found through the files that
include them. clang-tidy is what clang_tidy.txt names, installed from PyPI the first time, or what $CLANG_TIDY names.

A file that was clean is not looked at again until it, one of our headers that it includes, its compile command or
.clang-tidy changes, or clang_tidy.txt or $CLANG_TIDY. What was clean is remembered for 30 days in ~/.cache/shardproof/lint ($XDG_CACHE_HOME), outside of
the tree, so that a fresh checkout starts from it; then it is looked at again, since the key does not cover the headers
of the system.

Much of clang-tidy's time goes into parsing and matching the headers of the standard library, once for every .cc file. So several files are first looked at as one, joined in text like a unity build (not by #include: some checks
look at the main file only). Files that give the same name to something of their own are not joined. Joined files in which
anything is found, be it an error of joining, are looked at again in halves, and only what is found in a file alone is
reported. What joining may hide is little: an unused using-declaration whose name another of the joined files uses.
"""

import concurrent.futures
import functools
import hashlib
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), '..', '..'))
KEPT = os.path.join(os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'), 'shardproof')
CACHE = os.path.join(KEPT, 'lint')
REQUIREMENT = 'tools/ci/clang_tidy.txt'
CACHE_SECONDS = 30 * 24 * 3600
# One instruction set of Highway is enough: the source of the others is the same.
EXTRA = ('-DHWY_COMPILE_ONLY_STATIC',)
# Beyond this the joined text takes longer than the headers that it shares, and the last process has nobody beside it.
JOINED_LINES = 2000
# Between two joined files. The macro makes readability-duplicate-include forget what the file before included.
SEAM = '\n#define SHARDPROOF_LINT_SEAM\n#undef SHARDPROOF_LINT_SEAM\n'

INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)
NOT_CODE = re.compile(r'//[^\n]*|/\*.*?\*/|R"\((?:.*?)\)"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'|^\s*#(?:\\\n|[^\n])*',
                      re.DOTALL | re.MULTILINE)
USING = re.compile(r'^using (?!:*testing::)[\w:]+;', re.MULTILINE)
DECLARED = re.compile(r'\b(?:struct|enum class|class|enum|concept|using)\s+(\w+)|(\w+)\s*(?:[=([]|$)')


@functools.lru_cache(None)
def read(path):
  try:
    with open(os.path.join(ROOT, path), encoding='utf-8') as file:
      return file.read()
  except OSError:
    return ''


def with_headers(path, seen):
  """A digest of the file and of each of our headers that it includes, directly or not."""
  if path not in seen:
    seen[path] = hashlib.sha256(read(path).encode()).hexdigest()
    for header in INCLUDE.findall(read(path)):
      with_headers(header, seen)
  return seen


def flags(command):
  """What is left of the compile command without the file's own names."""
  left, rest = [], iter(command['arguments'][1:])
  for argument in rest:
    if argument in ('-c', '-o', '-MF'):
      next(rest)
    elif argument != '-MD' and not argument.startswith('-frandom-seed'):
      left.append(argument)
  return tuple(left) + EXTRA


def fingerprint(command, settings):
  """Names no folder outside of the tree, so that another checkout has the same."""
  relocatable = [re.sub(r'^/.*/(external|bazel-out)/', r'\1/', flag) for flag in flags(command)]
  key = [settings, command['file'], relocatable, sorted(with_headers(command['file'], {}).items())]
  return hashlib.sha256(json.dumps(key).encode()).hexdigest()


def own_names(text):
  """What the file declares in unnamed namespaces, with the namespaces around it; and `main`. An overestimate is good."""
  names, scopes, begin = set(), [], 0
  text = NOT_CODE.sub(lambda match: ' ""' if match[0][0] == '"' else ' ', text)
  for match in re.finditer(r'[{};]', text):
    head = re.sub(r'\btemplate\s*<[^{}]*?>\s*(?=\w)', '', text[begin:match.start()]).strip()
    begin = match.end()
    if all(scope is not None for scope in scopes) and not head.startswith('namespace'):
      declared = None if head.startswith('using') and '=' not in head else DECLARED.search(head)
      if declared and ('' in scopes or 'main' in declared.groups()):
        macro = re.match('[A-Z_]{2,}$', declared[2] or '')  # TEST(Suite, Name)
        names.add(tuple(scopes) + (head if macro else declared[1] or declared[2],))
    if match[0] == '{':
      scopes.append(head[len('namespace'):].strip() if head.startswith('namespace') else None)
    elif match[0] == '}' and scopes:
      scopes.pop()
  return names


def join(commands):
  """Lists of commands to look at together."""
  groups = []
  for command in commands:
    text = read(command['file'])
    # What a using-declaration brings in may clash with a header of another file; and shardproof::testing, of
    # collectives/testing/, hides GoogleTest's testing.
    key = flags(command), sorted(USING.findall(text)), '/testing/' in ''.join(INCLUDE.findall(text))
    names, lines = own_names(text), text.count('\n')
    for group in groups:
      if group['key'] == key and not group['names'] & names and group['lines'] + lines <= JOINED_LINES:
        break
    else:
      group = {'key': key, 'names': set(), 'lines': 0, 'commands': []}
      groups.append(group)
    group['names'] |= names
    group['lines'] += lines
    group['commands'].append(command)
  # The longest first, so that the last to end is a short one.
  return [group['commands'] for group in sorted(groups, key=lambda group: -group['lines'])]


@functools.lru_cache(None)
def program():
  given = os.environ.get('CLANG_TIDY')
  if given:
    return given
  wanted = hashlib.sha256(read(REQUIREMENT).encode()).hexdigest()[:16]
  folder = os.path.join(KEPT, f'clang-tidy-{platform.machine()}-{wanted}')
  binary = os.path.join(folder, 'clang_tidy', 'data', 'bin', 'clang-tidy')
  if not os.path.exists(binary):
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=KEPT) as fresh:
      pip = subprocess.run([sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check', 'install', '--no-deps',
                            '--require-hashes', '--only-binary', ':all:', '--root-user-action', 'ignore', '--target',
                            os.path.join(fresh, 'new'), '-r', os.path.join(ROOT, REQUIREMENT)], check=False)
      if pip.returncode:
        sys.exit(f'lint.py: {REQUIREMENT} cannot be installed from PyPI; CLANG_TIDY=/path/of/clang-tidy takes another')
      try:
        os.rename(os.path.join(fresh, 'new'), folder)
      except OSError:
        if not os.path.exists(binary):  # Another run was first, or it is an error.
          raise
  return binary


@functools.lru_cache(None)
def headers_of_gcc():
  """For omp.h, which this clang-tidy comes without; after its own headers."""
  folder = subprocess.run(['gcc', '-print-file-name=include'], check=True, stdout=subprocess.PIPE, text=True).stdout
  return '-idirafter', folder.strip()


def clang_tidy(path, command):
  arguments = ['--quiet', '--config-file=.clang-tidy', path, '--', *flags(command), *headers_of_gcc()]
  return subprocess.run([program(), *arguments], cwd=ROOT, check=False, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                        text=True)


def lint(commands, marks):
  """Marks the files that are clean, prints what is found in the others, and returns how many those are."""
  if len(commands) == 1:
    result = clang_tidy(commands[0]['file'], commands[0])
  else:
    with tempfile.NamedTemporaryFile('w', suffix='.cc', encoding='utf-8') as joined:
      joined.write(SEAM.join(read(command['file']) for command in commands))
      joined.flush()
      result = clang_tidy(joined.name, commands[0])
  if result.returncode == 0:
    for command in commands:
      with open(marks[command['file']], 'w', encoding='utf-8'):
        pass
    return 0
  if len(commands) > 1:
    half = len(commands) // 2
    return lint(commands[:half], marks) + lint(commands[half:], marks)
  # stderr only counts the warnings, unless clang-tidy could not run.
  print(result.stdout or result.stderr or f'{commands[0]["file"]}: clang-tidy fails and says nothing', flush=True)
  return 1


def drop_old():
  for mark in list(pathlib.Path(CACHE).iterdir()):
    if time.time() - mark.stat().st_mtime > CACHE_SECONDS:
      mark.unlink(missing_ok=True)


def main(chosen):
  if not read('compile_commands.json'):
    sys.exit('lint.py: no compile_commands.json; run python3 tools/ci/compile_commands.py first')
  commands = [command for command in json.loads(read('compile_commands.json'))
              if not os.path.isabs(command['file'])]  # Generated.
  unknown = set(chosen) - {command['file'] for command in commands}
  if unknown:
    sys.exit(f'lint.py: not in compile_commands.json: {" ".join(sorted(unknown))}')
  commands = [command for command in commands if not chosen or command['file'] in chosen]
  os.makedirs(CACHE, exist_ok=True)
  drop_old()
  settings = [read('.clang-tidy'), read(REQUIREMENT), os.environ.get('CLANG_TIDY')]
  marks = {command['file']: os.path.join(CACHE, fingerprint(command, settings)) for command in commands}
  to_do = [command for command in commands if not os.path.exists(marks[command['file']])]
  if to_do:
    program()
  with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
    found = sum(pool.map(lambda group: lint(group, marks), join(to_do)))
  print(f'clang-tidy: {len(commands)} files, {len(to_do)} of them looked at now, {found} with findings')
  return 1 if found else 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
