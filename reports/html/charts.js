'use strict';
// Draws the charts that chart.cc describes, all as scatter charts: with lines,
// whiskers, a shaded band and vertical marks.
const charts = (() => {
  const shapes = ['circle', 'triangle', 'rect', 'rectRot', 'star', 'crossRot', 'cross', 'dash'];
  const drawn = new Map();  // Figure -> Chart.
  let data = [];

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function significant(value) {
    if (value === 0) return '0';
    return Math.abs(value) >= 1000 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
  }

  function scaled(value, step, units) {
    let unit = 0;
    while (Math.abs(value) >= step && unit + 1 < units.length) {
      value /= step;
      ++unit;
    }
    return significant(value) + '\u00a0' + units[unit];
  }

  const formats = {
    time: (v) => v === 0 ? '0' : Math.abs(v) < 1 ? significant(1e3 * v) + '\u00a0ns' :
        scaled(v, 1000, ['\u00b5s', 'ms', 's']),
    bytes: (v) => scaled(v, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB']),
    share: (v) => (v > 0 ? '+' : '') + significant(100 * v) + '\u00a0%',
    portion: (v) => significant(100 * v) + '\u00a0%',
    rate: (v) => significant(v) + '\u00a0GB/s',
    number: significant,
    whole: (v) => Number.isInteger(v) ? String(v) : '',
  };
  const format = (axis, value) => axis.names ? (axis.names[value] || '') : (formats[axis.kind] || significant)(value);

  // Powers of 1, 2 and 5 of ten would be many; of two for bytes.
  function logTick(axis, value) {
    const base = axis.kind === 'bytes' ? 2 : 10;
    const power = Math.log(value) / Math.log(base);
    return Math.abs(power - Math.round(power)) < 1e-6 && (base === 10 || Math.round(power) % 4 === 0);
  }

  function shorten(text, longest) {
    return text.length <= longest ? text : text.slice(0, longest - 1) + '\u2026';
  }

  // Without the words that all names have, wherever they stand, and cut at the
  // beginning. A name that has no other words stays whole.
  function rowLabels(names, longest) {
    const words = names.map((name) => name.split(' '));
    const common = (word) => names.length > 1 && words.every((w) => w.includes(word));
    return words.map((w) => (w.filter((word) => !common(word)).join(' ') || w.join(' ')))
        .map((text) => text.length <= longest ? text : '\u2026' + text.slice(text.length - longest + 1));
  }

  function extent(chart, which) {
    let low = Infinity, high = -Infinity;
    for (const series of chart.series) {
      for (const p of series.points) {
        const values = [p[which]];
        if (series.whiskers && which === (chart.sideways ? 0 : 1)) values.push(p[2], p[3]);
        for (const v of values) {
          if (v === null || (chart[which ? 'y' : 'x'].log && v <= 0)) continue;
          low = Math.min(low, v);
          high = Math.max(high, v);
        }
      }
    }
    return [low, high];
  }

  function scale(chart, which, small) {
    const axis = chart[which ? 'y' : 'x'];
    const rows = chart.sideways && which === 1;
    const [low, high] = extent(chart, which);
    const labels = rows ? rowLabels(axis.names, small ? 20 : 60) : [];
    const options = {
      type: axis.log ? 'logarithmic' : 'linear',
      reverse: rows,
      title: {display: Boolean(axis.label), text: axis.label, color: color('--quiet'), font: {size: 12}},
      grid: {color: color('--grid'), borderColor: color('--rule'), display: !rows},
      ticks: {
        color: color('--quiet'),
        font: {size: 11},
        maxRotation: axis.names && !rows ? 40 : 0,
        autoSkip: !rows,
        callback: (value) => axis.log && !logTick(axis, value) ? null :
            rows ? labels[value] : shorten(format(axis, value), 16),
      },
    };
    if (rows) {
      options.min = -0.5;
      options.max = axis.names.length - 0.5;
      options.ticks.stepSize = 1;
      options.afterBuildTicks = (s) => { s.ticks = axis.names.map((_, i) => ({value: i})); };
    } else if (axis.names) {
      options.min = -0.5;
      options.max = axis.names.length - 0.5;
      const step = Math.max(1, Math.ceil(axis.names.length / (small ? 4 : 10)));
      options.afterBuildTicks = (s) => {
        s.ticks = axis.names.map((_, i) => ({value: i})).filter((_, i) => i % step === 0);
      };
      options.ticks.autoSkip = false;
    } else if (axis.kind === 'portion') {
      options.min = 0;
      options.max = 1;
    } else if (axis.log && axis.kind === 'bytes') {
      // Ticks at powers of two, which a logarithmic axis of tens has not.
      options.min = low / 1.5;
      options.max = high * 1.5;
      options.afterBuildTicks = (s) => {
        const from = Math.ceil(Math.log2(low) - 0.01), to = Math.floor(Math.log2(high) + 0.01);
        const step = Math.max(1, Math.ceil((to - from) / (small ? 4 : 8)));
        s.ticks = [];
        for (let p = from; p <= to; p += step) s.ticks.push({value: 2 ** p});
        if (s.ticks.length === 0) s.ticks.push({value: low});
      };
      options.ticks.callback = (value) => format(axis, value);
      options.ticks.autoSkip = false;
    } else if (axis.log) {
      options.min = low / 1.3;
      options.max = high * 1.3;
      if (high / low < 30) options.ticks.callback = (value) => format(axis, value);
    } else if (which === (chart.sideways ? 0 : 1) && low <= high) {
      // From zero, unless that would hide what there is to see. Whiskers count.
      const room = 0.06 * (high - low || Math.abs(high) || 1);
      options.suggestedMin = low >= 0 && low < 0.5 * high ? 0 : low - room;
      options.suggestedMax = high + room;
    } else if (axis.kind === 'whole') {
      options.ticks.precision = 0;
      options.grace = '3%';
    }
    return options;
  }

  function dataset(chart, series, index) {
    const tint = color('--c' + ((series.color ?? index) % 8));
    return {
      label: series.name,
      data: series.points.map((p, i) => ({
        x: p[0], y: p[1], low: p[2], high: p[3], name: series.names ? series.names[i] : '',
      })),
      whiskers: Boolean(series.whiskers),
      showLine: Boolean(series.line),
      borderColor: tint,
      backgroundColor: series.points.length > 30 && !series.line ? tint + '80' : tint,
      borderWidth: 1.5,
      borderDash: series.dashed ? [5, 4] : [],
      pointStyle: shapes[(series.color ?? index) % shapes.length],
      pointRadius: series.bare ? 0 : series.points.length > 400 ? 2 : 3.5,
      pointHoverRadius: series.bare ? 0 : 5,
      tension: 0,
    };
  }

  // What Chart.js does not draw itself.
  const extras = (chart) => ({
    id: 'extras',
    beforeDatasetsDraw(c) {
      const {ctx, chartArea: area, scales} = c;
      ctx.save();
      ctx.fillStyle = color('--band');
      for (const [from, to] of chart.bands || []) {
        if (chart.sideways) {
          const left = Math.max(area.left, scales.x.getPixelForValue(from));
          const right = Math.min(area.right, scales.x.getPixelForValue(to));
          if (right > left) ctx.fillRect(left, area.top, right - left, area.bottom - area.top);
        } else {
          const top = Math.max(area.top, scales.y.getPixelForValue(to));
          const bottom = Math.min(area.bottom, scales.y.getPixelForValue(from));
          if (bottom > top) ctx.fillRect(area.left, top, area.right - area.left, bottom - top);
        }
      }
      ctx.restore();
    },
    afterDatasetsDraw(c) {
      const {ctx, chartArea: area, scales} = c;
      ctx.save();
      ctx.beginPath();
      ctx.rect(area.left, area.top, area.right - area.left, area.bottom - area.top);
      ctx.clip();
      c.data.datasets.forEach((set, index) => {
        if (!set.whiskers || !c.isDatasetVisible(index)) return;
        ctx.strokeStyle = set.borderColor;
        ctx.lineWidth = 1.25;
        for (const p of set.data) {
          if (p.low === null || p.high === null) continue;
          const x = scales.x.getPixelForValue(p.x), y = scales.y.getPixelForValue(p.y);
          ctx.beginPath();
          if (chart.sideways) {
            ctx.moveTo(scales.x.getPixelForValue(p.low), y);
            ctx.lineTo(scales.x.getPixelForValue(p.high), y);
          } else {
            ctx.moveTo(x, scales.y.getPixelForValue(p.low));
            ctx.lineTo(x, scales.y.getPixelForValue(p.high));
          }
          ctx.stroke();
        }
      });
      if (chart.sideways && scales.x.min < 0 && scales.x.max > 0) {
        ctx.strokeStyle = color('--quiet');
        ctx.lineWidth = 1;
        ctx.beginPath();
        ctx.moveTo(scales.x.getPixelForValue(0), area.top);
        ctx.lineTo(scales.x.getPixelForValue(0), area.bottom);
        ctx.stroke();
      }
      drawMarks(chart, c);
      ctx.restore();
    },
  });

  // Labels that would lie over one another go into the next line.
  function drawMarks(chart, c) {
    const {ctx, chartArea: area, scales} = c;
    ctx.font = '11px system-ui, sans-serif';
    const ends = [];
    for (const mark of [...(chart.marks || [])].sort((a, b) => a.x - b.x)) {
      const x = scales.x.getPixelForValue(mark.x);
      if (!(x >= area.left && x <= area.right)) continue;
      const tint = color(mark.strong ? '--c1' : '--quiet');
      ctx.strokeStyle = tint;
      ctx.fillStyle = tint;
      ctx.lineWidth = mark.strong ? 2 : 1;
      ctx.setLineDash(mark.strong ? [] : [3, 3]);
      ctx.beginPath();
      ctx.moveTo(x, area.top);
      ctx.lineTo(x, area.bottom);
      ctx.stroke();
      ctx.setLineDash([]);
      const label = shorten(mark.label, 30);
      const width = ctx.measureText(label).width;
      const left = x + 4 + width > area.right ? x - 4 - width : x + 4;
      let line = 0;
      while (ends[line] !== undefined && ends[line] > left) ++line;
      ends[line] = left + width + 6;
      ctx.fillText(label, left, area.top + 11 + 13 * line);
    }
  }

  function tooltip(chart) {
    return {
      callbacks: {
        title: (items) => {
          const p = items[0].raw;
          return p.name || (chart.sideways ? chart.y.names[p.y] : `${chart.x.label}: ${format(chart.x, p.x)}`);
        },
        label: (item) => {
          const p = item.raw;
          const axis = chart.sideways ? chart.x : chart.y;
          const range = p.low === undefined || p.low === null || p.high === null ? '' :
              ` [${format(axis, p.low)}, ${format(axis, p.high)}]`;
          const beside = chart.x.names || chart.sideways || !p.name ? '' : ` at ${format(chart.x, p.x)}`;
          return `${item.dataset.label}: ${format(axis, chart.sideways ? p.x : p.y)}${range}${beside}`;
        },
      },
    };
  }

  function draw(figure) {
    const chart = data[Number(figure.dataset.chosen)];
    if (!chart) return;
    if (drawn.has(figure)) drawn.get(figure).destroy();
    const holder = figure.querySelector('.canvas');
    const canvas = holder.querySelector('canvas');
    const small = holder.clientWidth < 500;
    // The policy of the page allows styles that scripts set, one by one.
    if (chart.sideways) holder.style.height = `${Math.max(8, 4.5 + 1.6 * chart.y.names.length)}rem`;
    canvas.setAttribute('aria-label', `${figure.querySelector('figcaption').textContent}: ${chart.title}; ` +
        'the numbers are in the table');
    drawn.set(figure, new Chart(canvas, {
      type: 'scatter',
      data: {datasets: chart.series.map((series, i) => dataset(chart, series, i))},
      plugins: [extras(chart)],
      options: {
        animation: false,
        responsive: true,
        maintainAspectRatio: false,
        interaction: {mode: 'nearest', intersect: false},
        scales: {x: scale(chart, 0, small), y: scale(chart, 1, small)},
        plugins: {
          legend: {
            display: chart.series.length > 1,
            position: 'bottom',
            labels: {color: color('--ink'), usePointStyle: true, boxHeight: 7, font: {size: 12}},
          },
          tooltip: tooltip(chart),
        },
      },
    }));
  }

  function choose(figure, place) {
    const numbers = figure.dataset.charts.split(' ');
    const select = figure.querySelector('select');
    if (select) select.selectedIndex = place;
    figure.dataset.chosen = numbers[place];
    if (visible(figure)) draw(figure);
  }

  const visible = (figure) => figure.offsetParent !== null;

  function prepare(figure) {
    const numbers = figure.dataset.charts.split(' ');
    figure.dataset.chosen = numbers[0];
    if (numbers.length > 1) {
      const select = document.createElement('select');
      select.setAttribute('aria-label', 'Which to show');
      for (const number of numbers) {
        const option = document.createElement('option');
        option.textContent = data[Number(number)].title;
        select.append(option);
      }
      select.addEventListener('change', () => {
        const group = figure.dataset.group;
        for (const other of document.querySelectorAll('figure.chart')) {
          if (other.dataset.group === group) choose(other, select.selectedIndex);
        }
      });
      figure.append(select);
    }
    const holder = document.createElement('div');
    holder.className = 'canvas';
    const canvas = document.createElement('canvas');
    canvas.setAttribute('role', 'img');
    holder.append(canvas);
    figure.append(holder);
  }

  return {
    prepareAll() {
      data = JSON.parse(document.getElementById('charts').textContent);
      Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
      document.querySelectorAll('figure.chart').forEach(prepare);
    },
    // Those that can be seen and are not drawn yet.
    drawVisible() {
      for (const figure of document.querySelectorAll('figure.chart')) {
        if (visible(figure) && !drawn.has(figure)) draw(figure);
      }
    },
    // In the colours of now.
    redraw() {
      for (const figure of drawn.keys()) draw(figure);
    },
    // For paper: the size of a page that is hidden on the screen is not known.
    drawAllForPrint() {
      this.drawVisible();
      for (const chart of drawn.values()) chart.resize();
    },
  };
})();
