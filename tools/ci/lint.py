"""Runs clang-tidy on our .cc files in parallel: lint.py [FILE...]. Exits with 1 if it finds anything.

A file that was clean is not looked at again until it, one of our headers that it includes, its compile command or
.clang-tidy changes (.cache/lint). Warnings in our headers are found through the files that include them.
"""

import concurrent.futures
import hashlib
import json
import os
import re
import subprocess
import sys

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), '..', '..'))
CACHE = os.path.join(ROOT, '.cache', 'lint')
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


def read(path):
  try:
    with open(os.path.join(ROOT, path), encoding='utf-8') as file:
      return file.read()
  except OSError:
    return ''


def with_headers(path, seen):
  """The file and all of our headers that it includes, directly or not."""
  if path not in seen:
    seen[path] = read(path)
    for header in INCLUDE.findall(seen[path]):
      with_headers(header, seen)
  return seen


def fingerprint(command, settings):
  return hashlib.sha256(json.dumps([settings, command, with_headers(command['file'], {})]).encode()).hexdigest()


def lint(command):
  return subprocess.run(['clang-tidy', '--quiet', '-p', ROOT, command['file']], cwd=ROOT, check=False,
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def main(chosen):
  os.makedirs(CACHE, exist_ok=True)
  settings = read('.clang-tidy')
  commands = [command for command in json.loads(read('compile_commands.json'))
              if not os.path.isabs(command['file'])  # Generated.
              and (not chosen or command['file'] in chosen)]
  prints = {command['file']: fingerprint(command, settings) for command in commands}
  to_do = [command for command in commands if not os.path.exists(os.path.join(CACHE, prints[command['file']]))]
  found = 0
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for command, result in zip(to_do, pool.map(lint, to_do)):
      if result.returncode == 0:
        with open(os.path.join(CACHE, prints[command['file']]), 'w', encoding='utf-8'):
          pass
      else:
        found += 1
        # stderr only counts the warnings, unless clang-tidy could not run.
        print(result.stdout or result.stderr, flush=True)
  print(f'clang-tidy: {len(commands)} files, {len(to_do)} of them looked at now, {found} with findings')
  return 1 if found else 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
