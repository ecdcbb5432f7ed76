"""Opens reports in headless Chromium: browser_test.py SAMPLE_REPORT [FOLDER]

Pages render, charts have pixels, tabs, theme, filter and sorting work, nothing is fetched, the console is empty, and the
reports of an enemy run no script. With FOLDER the samples and their screenshots are left there, to be looked at.

Skipped, with the reason, where Chromium, its driver or Selenium is missing. Times are printed and never judged.
"""

import base64
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
import xml.sax.saxutils

try:
  from selenium import webdriver
  from selenium.webdriver.common.by import By
  from selenium.webdriver.support.ui import Select
except ImportError:
  webdriver = None

PAGES = ('gate', 'interconnect', 'kernel', 'layers')
KINDS = ('rich', 'empty', 'hostile', 'large')
# Every canvas that can be seen, and whether anything is drawn on it.
CANVASES = """
  return [...document.querySelectorAll('canvas')].filter((c) => c.offsetParent !== null).map((c) => {
    const pixels = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
    let colors = new Set();
    for (let i = 0; i < pixels.length; i += 4) {
      if (pixels[i + 3] > 40) colors.add((pixels[i] << 16) | (pixels[i + 1] << 8) | pixels[i + 2]);
    }
    return colors.size;
  });"""
# Contrast of WCAG 2 of every text that can be seen against the first background behind it.
CONTRASTS = """
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
      .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
      .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const bad = [];
  for (const element of document.querySelectorAll('main *, header *, footer')) {
    const own = [...element.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.textContent.trim());
    if (!own || element.offsetParent === null && !(element instanceof SVGElement)) continue;
    let behind = element;
    while (behind && (parse(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0) behind = behind.parentElement;
    const style = getComputedStyle(element);
    const ink = parse(element instanceof SVGElement ? style.fill : style.color);
    const a = light(ink), b = light(parse(getComputedStyle(behind || document.body).backgroundColor));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push(`${element.tagName}.${element.className.baseVal ?? element.className} ${ratio.toFixed(2)}`);
  }
  return [...new Set(bad)];"""


def why_not():
  if webdriver is None:
    return 'Selenium is not installed for this Python (Debian: python3-selenium)'
  for command, package in (('chromium', 'chromium'), ('chromedriver', 'chromium-driver')):
    if not shutil.which(command):
      return f'{command} is not in PATH (Debian: {package})'
  return ''


def open_browser(scratch, scripts=True):
  options = webdriver.ChromeOptions()
  options.binary_location = shutil.which('chromium')
  # Root has no other sandbox than none, and containers have a small /dev/shm.
  for flag in ('--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--hide-scrollbars',
               '--disable-background-networking', '--host-resolver-rules=MAP * ~NOTFOUND',
               f'--user-data-dir={tempfile.mkdtemp(dir=scratch)}'):
    options.add_argument(flag)
  if not scripts:
    options.add_experimental_option('prefs', {'profile.managed_default_content_settings.javascript': 2})
  options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
  service = webdriver.chrome.service.Service(shutil.which('chromedriver'))
  browser = webdriver.Chrome(service=service, options=options)
  browser.set_page_load_timeout(60)
  return browser


class BrowserTest(unittest.TestCase):
  browser = None
  folder = None
  keep = False

  def setUp(self):
    self.size(1280, 900)
    self.media(dark=False)

  def size(self, width, height):
    self.browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride',
                                 {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': width < 500})

  def media(self, dark):
    self.browser.execute_cdp_cmd('Emulation.setEmulatedMedia', {
        'features': [{'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}]})

  def script(self, text, *arguments):
    return self.browser.execute_script(text, *arguments)

  def open(self, kind, page='gate'):
    self.browser.get('about:blank')
    self.requests(), self.browser.get_log('browser')  # Of what was before.
    self.browser.get(f'file://{self.folder}/{kind}.html#{page}')

  def requests(self):
    messages = [json.loads(entry['message'])['message'] for entry in self.browser.get_log('performance')]
    return [m['params']['request']['url'] for m in messages if m['method'] == 'Network.requestWillBeSent']

  def screenshot(self, name):
    if not self.keep:
      return
    height = min(4000, self.script('return document.documentElement.scrollHeight'))
    picture = self.browser.execute_cdp_cmd('Page.captureScreenshot', {
        'captureBeyondViewport': True, 'clip': {'x': 0, 'y': 0, 'width': self.script('return innerWidth'),
                                                'height': height, 'scale': 1}})
    pathlib.Path(self.folder, name + '.png').write_bytes(base64.b64decode(picture['data']))

  def visible(self, selector):
    return [e for e in self.browser.find_elements(By.CSS_SELECTOR, selector) if e.is_displayed()]

  def test_every_page_renders_and_asks_for_nothing(self):
    for kind in KINDS:
      for page in PAGES:
        with self.subTest(kind=kind, page=page):
          self.open(kind, page)
          shown = [e.get_attribute('id') for e in self.visible('section.page')]
          self.assertEqual(shown, [page])
          self.assertEqual(self.browser.get_log('browser'), [])
          others = [url for url in self.requests() if not url.startswith(('file://', 'about:blank'))]
          self.assertEqual(others, [])
          self.screenshot(f'{kind}-{page}')

  def test_charts_are_drawn(self):
    least = {'gate': 1, 'interconnect': 7, 'kernel': 4, 'layers': 0}
    for page in PAGES:
      with self.subTest(page=page):
        self.open('rich', page)
        colors = self.script(CANVASES)
        self.assertGreaterEqual(len(colors), least[page])
        # Axes, text and series; a blank canvas has no color.
        self.assertTrue(all(n > 5 for n in colors), colors)
        self.assertEqual(len(self.visible('figure.chart canvas')), len(colors))

  def test_a_page_without_its_charts_has_their_numbers(self):
    self.open('rich', 'interconnect')
    text = self.browser.find_element(By.ID, 'interconnect').get_attribute('textContent')
    self.assertIn('8.89', text)
    self.open('rich', 'kernel')
    text = self.browser.find_element(By.ID, 'kernel').get_attribute('textContent')
    self.assertIn('+7.00 % at 4f2c364', text)

  def test_tabs_show_one_page(self):
    self.open('rich')
    for page in PAGES:
      self.browser.find_element(By.CSS_SELECTOR, f'nav a[href="#{page}"]').click()
      self.assertEqual([e.get_attribute('id') for e in self.visible('section.page')], [page])
      self.assertEqual([e.get_attribute('hash') for e in self.browser.find_elements(
          By.CSS_SELECTOR, 'nav a[aria-current]')], ['#' + page])

  def test_a_box_chooses_the_charts_of_its_group(self):
    self.open('rich', 'kernel')
    figures = self.browser.find_elements(By.CSS_SELECTOR, 'figure[data-group="history"]')
    self.assertEqual(len(figures), 2)
    Select(figures[0].find_element(By.TAG_NAME, 'select')).select_by_index(1)
    for figure in figures:
      self.assertEqual(figure.get_attribute('data-chosen'), figure.get_attribute('data-charts').split()[1])
      self.assertIn('layers/mlp', figure.find_element(By.TAG_NAME, 'canvas').get_attribute('aria-label'))

  def test_the_theme_is_that_of_the_system_until_it_is_chosen(self):
    paper = 'return getComputedStyle(document.body).backgroundColor'
    self.open('rich')
    light = self.script(paper)
    self.media(dark=True)
    self.assertNotEqual(self.script(paper), light)
    self.media(dark=False)
    self.browser.find_element(By.CSS_SELECTOR, 'button.theme').click()
    dark = self.script(paper)
    self.assertNotEqual(dark, light)
    self.browser.refresh()
    self.assertEqual(self.script(paper), dark)
    self.browser.find_element(By.CSS_SELECTOR, 'button.theme').click()
    self.assertEqual(self.script(paper), light)
    self.script('localStorage.clear()')

  def test_text_stands_out_in_both_themes(self):
    for dark in (False, True):
      for page in PAGES:
        with self.subTest(dark=dark, page=page):
          self.media(dark)
          self.open('rich', page)
          self.assertEqual(self.script(CONTRASTS), [])
          self.screenshot(f'rich-{page}-{"dark" if dark else "light"}')

  def test_the_filter_leaves_rows_with_all_words(self):
    self.open('rich', 'kernel')
    table = self.browser.find_elements(By.CSS_SELECTOR, '#kernel table.filterable')[-1]
    rows = 'return [...arguments[0].tBodies[0].rows].filter((r) => !r.hidden).map((r) => r.textContent)'
    everything = self.script(rows, table)
    box = self.browser.find_elements(By.CSS_SELECTOR, '#kernel label.filter')[-1]
    box.find_element(By.TAG_NAME, 'input').send_keys('RING bf16')
    some = self.script(rows, table)
    self.assertEqual(some, [r for r in everything if 'ring' in r and 'bf16' in r])
    self.assertTrue(0 < len(some) < len(everything))
    self.assertIn(f'{len(some)} of {len(everything)} rows', box.text)

  def test_tables_are_sorted_by_number_and_by_text(self):
    self.open('rich', 'kernel')
    table = self.browser.find_elements(By.CSS_SELECTOR, '#kernel table.filterable')[-1]
    column = 'return [...arguments[0].tBodies[0].rows].map((r) => r.cells[arguments[1]].textContent)'
    heads = [h.get_attribute('textContent') for h in table.find_elements(By.CSS_SELECTOR, 'thead th')]
    median = next(i for i, h in enumerate(heads) if h.startswith('median'))
    for index, key in ((median, float), (1, str)):
      button = table.find_elements(By.CSS_SELECTOR, 'thead button.sort')[index]
      for down in (False, True):
        self.script('arguments[0].click()', button)
        cells = [c for c in self.script(column, table, index) if c != '\u2013']
        self.assertEqual([key(c) for c in cells], sorted((key(c) for c in cells), reverse=down))

  def test_a_phone_does_not_scroll_sideways(self):
    self.size(390, 844)
    for kind in KINDS:
      for page in PAGES:
        with self.subTest(kind=kind, page=page):
          self.open(kind, page)
          width, inner = self.script('return [document.documentElement.scrollWidth, innerWidth]')
          self.assertEqual(inner, 390)
          self.assertLessEqual(width, inner)
          self.screenshot(f'{kind}-{page}-phone')

  def test_an_enemy_runs_nothing(self):
    for page in PAGES:
      with self.subTest(page=page):
        self.open('hostile', page)
        self.script("document.querySelectorAll('*').forEach((e) => e.dispatchEvent(new MouseEvent('mouseover')))")
        self.assertIsNone(self.script('return window.injected ?? null'))
        self.assertEqual(self.script("return document.querySelectorAll('img, iframe, object, embed, base').length"), 0)
        self.assertEqual(self.script("return document.querySelectorAll('script').length"), 4)

  def test_the_policy_stops_a_script_that_is_put_in(self):
    self.open('rich')
    self.script("""
      const script = document.createElement('script');
      script.textContent = 'window.injected = 1';
      document.body.append(script);
      const button = document.createElement('button');
      button.setAttribute('onclick', 'window.injected = 1');
      document.body.append(button);
      button.click();""")
    self.assertIsNone(self.script('return window.injected ?? null'))
    self.assertGreaterEqual(len(self.browser.get_log('browser')), 2)  # It says what it stopped.

  def test_paper_has_every_page(self):
    self.open('rich', 'layers')
    pdf = self.browser.execute_cdp_cmd('Page.printToPDF', {'printBackground': True, 'preferCSSPageSize': True})
    data = base64.b64decode(pdf['data'])
    self.assertTrue(data.startswith(b'%PDF'))
    if self.keep:
      pathlib.Path(self.folder, 'rich.pdf').write_bytes(data)
    self.browser.execute_cdp_cmd('Emulation.setEmulatedMedia', {'media': 'print'})
    self.assertEqual([e.get_attribute('id') for e in self.visible('section.page')], list(PAGES))
    self.assertEqual(self.visible('nav, .filter, button.theme, select'), [])
    self.browser.execute_cdp_cmd('Emulation.setEmulatedMedia', {'media': ''})

  def test_without_scripts_everything_is_there(self):
    browser = open_browser(self.folder, scripts=False)
    try:
      for kind in ('rich', 'hostile'):
        browser.get(f'file://{self.folder}/{kind}.html')
        shown = [e.get_attribute('id') for e in browser.find_elements(By.CSS_SELECTOR, 'section.page')
                 if e.is_displayed()]
        self.assertEqual(shown, list(PAGES))
        self.assertEqual(browser.find_elements(By.CSS_SELECTOR, 'canvas, button'), [])
        self.assertGreater(len([t for t in browser.find_elements(By.TAG_NAME, 'table') if t.is_displayed()]), 10)
      browser.get(f'file://{self.folder}/rich.html')
      self.assertIn('FAILED: 1 wrong result', browser.find_element(By.ID, 'gate').text)
    finally:
      browser.quit()

  def test_two_thousand_records_render(self):
    for page in PAGES:
      begin = time.monotonic()
      self.open('large', page)
      self.script('return new Promise((done) => requestAnimationFrame(() => setTimeout(done)))')
      seconds = time.monotonic() - begin
      print(f'large.html#{page}: {seconds:.2f} s until it is drawn; '
            f'{os.path.getsize(os.path.join(self.folder, "large.html")) / 2**20:.2f} MiB')
    self.open('large', 'kernel')
    rows = self.script("return [...document.querySelectorAll('#kernel table')].pop().tBodies[0].rows.length")
    self.assertEqual(rows, 2000)


class Result(unittest.TextTestResult):
  """Keeps what the report of Bazel's test protocol needs."""

  def __init__(self, *arguments):
    super().__init__(*arguments)
    self.cases = {}

  def startTest(self, test):
    super().startTest(test)
    self.cases[test.id()] = ''

  def fail_case(self, test, error):
    self.cases[test.id()] += self._exc_info_to_string(error, test)

  def addError(self, test, err):
    super().addError(test, err)
    self.fail_case(test, err)

  def addFailure(self, test, err):
    super().addFailure(test, err)
    self.fail_case(test, err)

  def addSubTest(self, test, subtest, err):
    super().addSubTest(test, subtest, err)
    if err is not None:
      self.fail_case(test, err)


def write_report(cases, skipped=''):
  """As GoogleTest does; tools/ci/count_tests.py reads it."""
  path = os.environ.get('XML_OUTPUT_FILE')
  if not path:
    return
  quote = xml.sax.saxutils.quoteattr
  lines = []
  for name, failure in cases.items():
    inside = f'<failure message={quote(failure[-2000:])}/>' if failure else ''
    if skipped:
      inside = f'<skipped message={quote(skipped)}/>'
    lines.append(f'<testcase name={quote(name.rsplit(".", 1)[-1])} classname="browser">{inside}</testcase>')
  failures = sum(1 for failure in cases.values() if failure)
  with open(path, 'w', encoding='utf-8') as file:
    file.write('<?xml version="1.0" encoding="UTF-8"?>\n<testsuites><testsuite name="browser" '
               f'tests="{len(cases)}" failures="{failures}" errors="0" skipped="{len(cases) if skipped else 0}">\n' +
               '\n'.join(lines) + '\n</testsuite></testsuites>\n')


def main(sample_report, folder=''):
  reason = why_not()
  if reason:
    print(f'SKIPPED: {reason}')
    write_report({'browser_test': ''}, reason)
    return 0
  with tempfile.TemporaryDirectory(dir=os.environ.get('TEST_TMPDIR')) as scratch:
    BrowserTest.keep = bool(folder)
    BrowserTest.folder = os.path.abspath(folder or scratch)
    for kind in KINDS:
      subprocess.run([sample_report, kind, os.path.join(BrowserTest.folder, kind + '.html')], check=True)
    BrowserTest.browser = open_browser(scratch)
    try:
      suite = unittest.defaultTestLoader.loadTestsFromTestCase(BrowserTest)
      result = unittest.TextTestRunner(sys.stdout, resultclass=Result, verbosity=2).run(suite)
    finally:
      BrowserTest.browser.quit()
  write_report(result.cases)
  return 0 if result.wasSuccessful() else 1


if __name__ == '__main__':
  sys.exit(main(*sys.argv[1:]))
