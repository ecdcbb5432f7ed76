"""Writes compile_commands.json, for clang-tidy and for editors, from what Bazel would run.

The paths of Bazel's sandbox are turned into paths that exist without it: sources in the workspace, external headers
in Bazel's output base. Nothing is built: aquery only analyses, with the flags of .ci/run, whose analysis it thus shares.
"""

import json
import os
import subprocess

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), '..', '..'))
# Flags of gcc that clang does not know, or that make errors of what only clang warns of.
GCC_ONLY = ('-Werror', '-fno-canonical-system-headers', '-Wno-free-nonheap-object', '-Wunused-but-set-parameter')


def bazel(*arguments):
  return subprocess.run(('bazel',) + arguments, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def translate(argument, output_base, execution_root):
  if argument.startswith('external/'):
    return os.path.join(output_base, argument)
  if argument.startswith('bazel-out/'):
    return os.path.join(execution_root, argument)
  return argument


def main():
  paths = bazel('info', 'output_base', 'execution_root')
  info = dict(line.split(': ', 1) for line in paths.splitlines())
  query = 'mnemonic("CppCompile", //...)'
  graph = json.loads(bazel('aquery', '--config=ci', '--output=jsonproto', '--ui_event_filters=-info', query))
  commands = {}
  for action in graph.get('actions', []):
    arguments = action['arguments']
    source = arguments[arguments.index('-c') + 1]
    commands[source] = {
        'directory': ROOT,
        'file': translate(source, info['output_base'], info['execution_root']),
        'arguments': [
            translate(argument, info['output_base'], info['execution_root'])
            for argument in arguments
            if argument not in GCC_ONLY
        ],
    }
  with open(os.path.join(ROOT, 'compile_commands.json'), 'w', encoding='utf-8') as file:
    json.dump([commands[source] for source in sorted(commands)], file, indent=1)


if __name__ == '__main__':
  main()
