'use strict';
// Pages as tabs, themes, sorting, filtering and copying. Everything is readable
// without. Nothing here makes markup of text: textContent only.
(() => {
  const root = document.documentElement;
  const pages = [...document.querySelectorAll('.page')];
  const links = [...document.querySelectorAll('nav a')];

  function button(text, name) {
    const element = document.createElement('button');
    element.type = 'button';
    element.textContent = text;
    element.className = name;
    return element;
  }

  function show(id) {
    const wanted = pages.some((page) => page.id === id) ? id : pages[0].id;
    for (const page of pages) page.classList.toggle('current', page.id === wanted);
    for (const link of links) {
      if (link.hash === '#' + wanted) {
        link.setAttribute('aria-current', 'page');
      } else {
        link.removeAttribute('aria-current');
      }
    }
    charts.drawVisible();
  }

  function isDark() {
    return root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  }

  function addThemeButton() {
    const toggle = button('', 'theme');
    const name = () => { toggle.textContent = isDark() ? 'Light' : 'Dark'; };
    toggle.setAttribute('aria-label', 'Change between light and dark');
    toggle.addEventListener('click', () => {
      root.dataset.theme = isDark() ? 'light' : 'dark';
      try {
        localStorage.setItem('shardproof-theme', root.dataset.theme);
      } catch (error) {
        // Not remembered.
      }
      name();
      charts.redraw();
    });
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
      name();
      charts.redraw();
    });
    name();
    document.querySelector('header').append(toggle);
  }

  // A number where the cell has one: "[1.2, 1.4]" counts by 1.2.
  function valueOf(cell) {
    if (!cell) return {text: ''};
    const text = cell.dataset.v || cell.textContent.trim();
    const number = Number.parseFloat(text.replace(/^\[/, ''));
    return {number: cell.classList.contains('n') ? number : Number.NaN, text};
  }

  function compare(a, b) {
    const aMissing = Number.isNaN(a.number), bMissing = Number.isNaN(b.number);
    if (!aMissing && !bMissing) return a.number - b.number;
    if (aMissing !== bMissing) return aMissing ? 1 : -1;
    return a.text.localeCompare(b.text, 'en', {numeric: true});
  }

  function makeSortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const sort = button('', 'sort');
      sort.append(...head.childNodes);
      head.append(sort);
      sort.addEventListener('click', () => {
        const down = head.getAttribute('aria-sort') === 'ascending';
        for (const other of heads) other.removeAttribute('aria-sort');
        head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
        const body = table.tBodies[0];
        const rows = [...body.rows].map((row) => ({row, value: valueOf(row.cells[column])}));
        rows.sort((a, b) => down ? compare(b.value, a.value) : compare(a.value, b.value));
        body.append(...rows.map(({row}) => row));
      });
    });
  }

  function makeFilterable(table) {
    const label = document.createElement('label');
    label.className = 'filter';
    const input = document.createElement('input');
    input.type = 'search';
    input.placeholder = 'Filter: all of these words';
    const count = document.createElement('span');
    count.setAttribute('aria-live', 'polite');
    const rows = [...table.tBodies[0].rows];
    let texts = null;
    input.setAttribute('aria-label', 'Show only rows with these words');
    input.addEventListener('input', () => {
      texts = texts || rows.map((row) => row.textContent.toLowerCase());
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, i) => {
        row.hidden = !words.every((word) => texts[i].includes(word));
        shown += row.hidden ? 0 : 1;
      });
      count.textContent = words.length ? `${shown} of ${rows.length} rows` : '';
    });
    label.append(input, count);
    table.closest('.scroll').before(label);
  }

  root.classList.add('scripted');
  charts.prepareAll();
  addThemeButton();
  document.querySelectorAll('table.sortable').forEach(makeSortable);
  document.querySelectorAll('table.filterable').forEach(makeFilterable);
  addEventListener('hashchange', () => {
    show(location.hash.slice(1));
    scrollTo(0, 0);
  });
  show(location.hash.slice(1));

  // Paper is light and shows every page.
  let theme = '';
  addEventListener('beforeprint', () => {
    theme = root.dataset.theme || '';
    root.dataset.theme = 'light';
    for (const page of pages) page.classList.add('current');
    charts.redraw();
    charts.drawAllForPrint();
  });
  addEventListener('afterprint', () => {
    if (theme) {
      root.dataset.theme = theme;
    } else {
      delete root.dataset.theme;
    }
    show(location.hash.slice(1));
    charts.redraw();
  });
})();
