"""Checks what neither the compiler nor the formatter does: check_tree.py [ROOT FILE...]

Prints what is wrong, and exits with 1 if anything is. Without arguments it looks at every file that git does not ignore.

* No source file is over 500 lines.
* Includes follow the rules in /BUILD. Bazel's visibility stops most breaches when they compile; this one also sees the
  ones that a dependency of a dependency would let through, and harness headers outside of a case.cc or of a folder
  `pairing`, where several case.cc have what they share.
* MPI, NCCL and CUDA headers are only in backend/ and in .cu files.
* Headers are guarded by #ifndef SHARDPROOF_<PATH>_H_. Not x-inl.h: Highway includes those once per instruction set.
"""

import os
import re
import subprocess
import sys

MOST_LINES = 500
CODE = ('.cc', '.cu', '.cuh', '.h')
COUNTED = CODE + ('.bzl', '.py', '.sh')
INCLUDE = re.compile(r'^\s*#\s*include\s*["<]([^">]+)[">]', re.MULTILINE)
DEVICE_LIBRARY = re.compile(r'^(mpi|nccl|cuda|cuda_runtime|cuda_bf16|cuda_fp16|cuda_fp8|cublas.*|cudnn.*)\.h$')

MAY_INCLUDE = {
    'reference': (),
    'reports': ('reference/status.h',),  # Errors are of one kind everywhere.
    'collectives': ('reference',),
    'layers': ('reference', 'collectives'),
    'attention': ('reference', 'collectives', 'layers'),
    'pipeline': ('reference', 'collectives', 'layers'),
    'pipeline/train_step': ('reference', 'collectives', 'layers', 'attention'),
    'tools': ('reference', 'reports', 'collectives', 'layers', 'attention', 'pipeline'),
    'tools/harness': ('reference', 'reports', 'collectives'),
}
FOLDERS = {path.split('/', maxsplit=1)[0] for path in MAY_INCLUDE}


def tracked_and_new(root):
  listed = subprocess.run(['git', 'ls-files', '--cached', '--others', '--exclude-standard'], cwd=root, check=True,
                          stdout=subprocess.PIPE, text=True).stdout.splitlines()
  return sorted(path for path in listed if os.path.isfile(os.path.join(root, path)))


def rule_for(path):
  """The longest folder of MAY_INCLUDE that holds the file."""
  return max((folder for folder in MAY_INCLUDE if path.startswith(folder + '/')), key=len, default=None)


def check_includes(path, text):
  folder = rule_for(path)
  top = path.split('/', maxsplit=1)[0]
  in_backend = '/backend/' in path or path.endswith(('.cu', '.cuh'))
  for included in INCLUDE.findall(text):
    if DEVICE_LIBRARY.match(included) and not in_backend:
      yield f'{path}: includes {included}, which belongs under backend/ or in a .cu file'
    other = included.split('/', maxsplit=1)[0]
    if folder is None or other not in FOLDERS or other == top or '/' not in included:
      continue
    pairs = re.match(r'case(_\w+)?\.(cc|h)$', os.path.basename(path)) or '/pairing/' in path
    if other == 'tools' and pairs and included.startswith('tools/harness/'):
      continue
    if other not in MAY_INCLUDE[folder] and included not in MAY_INCLUDE[folder]:
      yield f'{path}: includes {included}, but {folder} may include only: {", ".join(MAY_INCLUDE[folder]) or "nothing"}'
    below = included.startswith(('collectives/backend/', 'collectives/kernels/'))
    if folder == 'tools/harness' and other == 'collectives' and included.count('/') > 1 and not below:
      yield f'{path}: includes {included}, but the harness knows the communicator and no primitive'


def check_guard(path, text):
  guard = 'SHARDPROOF_' + re.sub(r'[^A-Za-z0-9]', '_', path).upper() + '_'
  if f'#ifndef {guard}\n#define {guard}\n' not in text:
    yield f'{path}: the include guard is not {guard}'


def check(root, path):
  with open(os.path.join(root, path), encoding='utf-8') as file:
    text = file.read()
  lines = text.count('\n')
  if lines > MOST_LINES:
    yield f'{path}: {lines} lines; the most is {MOST_LINES}'
  if path.endswith(CODE):
    yield from check_includes(path, text)
  if path.endswith('.h') and not path.endswith('-inl.h'):
    yield from check_guard(path, text)


def main(arguments):
  root = arguments[0] if arguments else os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..')
  paths = arguments[1:] or tracked_and_new(root)
  wrong = [message for path in paths if path.endswith(COUNTED) for message in check(root, path)]
  print('\n'.join(wrong + [f'check_tree: {len(wrong)} found']))
  return 1 if wrong else 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
