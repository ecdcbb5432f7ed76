"""Writes embedded.cc: embed.py OUTPUT FUNCTION=FILE[,FILE...]...

Each FUNCTION of embedded.h returns the text of its files. StyleHash() and ScriptHashes() are the SHA-256 of these texts
as a Content-Security-Policy names them: all but Style are scripts.
"""

import base64
import hashlib
import sys

# The compiler may refuse longer literals; neighbours are joined.
LONGEST_LITERAL = 8000


def literal(text):
  """As raw string literals, cut by bytes of UTF-8 between characters."""
  parts, part, size = [], [], 0
  for character in text:
    size += len(character.encode())
    part.append(character)
    if size >= LONGEST_LITERAL:
      parts.append(''.join(part))
      part, size = [], 0
  parts.append(''.join(part))
  return '\n'.join(f'R"embedded({part})embedded"' for part in parts)


def policy_source(text):
  return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def main(output, parts):
  functions, scripts, style = [], [], ''
  for part in parts:
    name, paths = part.split('=', maxsplit=1)
    texts = []
    for path in paths.split(','):
      with open(path, encoding='utf-8') as file:
        texts.append(file.read().rstrip('\n') + '\n')
    text = ''.join(texts)
    for forbidden in ('</script', '</style', '<!--', '\0', '\r', ')embedded"'):
      if forbidden in text.lower():
        sys.exit(f'embed.py: {paths} holds {forbidden!r}, which would end what it is put into')
    functions.append((name, literal(text)))
    if name == 'Style':
      style = policy_source(text)
    else:
      scripts.append(policy_source(text))
  functions += [('StyleHash', literal(style)), ('ScriptHashes', literal(' '.join(scripts)))]
  with open(output, 'w', encoding='utf-8') as file:
    file.write('#include "reports/html/embedded.h"\n\nnamespace shardproof::html {\n')
    for name, text in functions:
      file.write(f'\nstd::string_view {name}() {{\n  static constexpr std::string_view kText =\n{text};\n'
                 '  return kText;\n}\n')
    file.write('\n}  // namespace shardproof::html\n')


if __name__ == '__main__':
  main(sys.argv[1], sys.argv[2:])
