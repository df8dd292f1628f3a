"use strict";
// A figure's curves (charts.py), drawn by uPlot in its place: hover for values, drag to zoom, click a name to hide it.
(() => {
  const INK = "#333", GRID = "rgba(128,128,128,.22)"; // the style sheet turns a canvas's colours over in the dark
  const FONT = "11px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";
  const number = new Intl.NumberFormat("en", { maximumSignificantDigits: 6 });
  const shown = (value) => number.format(value).replace("-", "−");

  function short(value) {
    const size = Math.abs(value);
    return size >= 1e6 ? shown(value / 1e6) + "M" : size >= 1e4 ? shown(value / 1e3) + "k" : shown(value);
  }

  function element(tag, name, text) {
    const made = document.createElement(tag);
    if (name) made.className = name;
    if (text) made.textContent = text;
    return made;
  }

  const faded = (color, alpha) => color + Math.round(255 * alpha).toString(16).padStart(2, "0");

  // The sample of a line, for its name and beside its value.
  function swatch(look) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    const set = { x1: 1, x2: 27, y1: 5, y2: 5, stroke: look.color, "stroke-width": 2.5 * look.width };
    if (look.dash.length) set["stroke-dasharray"] = look.dash.map((part) => 2 * part).join(" ");
    svg.setAttribute("viewBox", "0 0 28 10");
    svg.setAttribute("class", "swatch");
    svg.setAttribute("aria-hidden", "true");
    for (const [key, value] of Object.entries(set)) line.setAttribute(key, value);
    svg.append(line);
    return svg;
  }

  // uPlot wants one x for all series of a panel; `roles` says what each series is.
  function series(panel, names) {
    const tables = [], roles = [], options = [], bands = [];
    const add = (curve, role, y, option) => {
      tables.push([panel.xs[curve.x], y]);
      roles.push({ curve, role });
      options.push({ spanGaps: true, points: { show: false }, ...option });
      return options.length;
    };
    for (const curve of panel.curves) {
      const look = names[curve.name];
      const paths = curve.steps ? uPlot.paths.stepped({ align: 1 }) : undefined;
      for (const seed of curve.seeds || []) {
        add(curve, "seed", seed, { stroke: faded(look.color, 0.4), width: 0.75, paths });
      }
      if (curve.low) {
        const edge = { stroke: "transparent", width: 0, paths };
        const high = add(curve, "edge", curve.high, edge), low = add(curve, "edge", curve.low, edge);
        bands.push({ series: [high, low], fill: faded(look.color, 0.18) });
      }
      const dash = look.dash.map((part) => 1.6 * part);
      const points = { show: panel.xs[curve.x].length < 2, size: 6, fill: look.color };
      add(curve, "mean", curve.y, { stroke: look.color, width: 2 * look.width, dash, paths, points });
    }
    return { data: uPlot.join(tables), roles, options, bands };
  }

  function draw(box, panel, chart, state) {
    const { data, roles, options, bands } = series(panel, chart.names);
    const tip = element("div", "tip");
    const rounded = (value) => shown(Number(value.toFixed(panel.decimals)));
    const size = () => ({ width: box.clientWidth, height: box.clientHeight });
    const axis = (label, more) => ({
      label, font: FONT, labelFont: FONT, labelSize: 16, labelGap: 0, gap: 3, stroke: INK,
      grid: { stroke: GRID, width: 1 }, ticks: { stroke: GRID, width: 1, size: 4 },
      values: (self, splits) => splits.map(short), ...more,
    });
    const visible = ({ curve, role }) => !state.hidden.has(curve.name) && (role !== "seed" || state.seeds);
    // The figure's own range, or what is zoomed to or left when names are hidden; an axis that begins at 0 stays so.
    const range = (self, low, high) => {
      const [bottom, top] = panel.ylim;
      if ((!self.zoomed && !state.hidden.size) || low === null) return [bottom, top];
      const room = 0.05 * (high - low) || 1;
      return [Math.max(bottom, low - room), high + room];
    };
    const plot = new uPlot({
      ...size(),
      padding: [8, 12, 0, 0],
      legend: { show: false },
      cursor: { drag: { x: true, y: true, uni: 24, dist: 5 }, y: false, points: { size: 7, show: (self, i) =>
        roles[i - 1].role === "mean" ? point(chart.names[roles[i - 1].curve.name].color) : null } },
      scales: { x: { time: false, range: (self, low, high) => self.zoomed ? [low, high] : panel.xlim }, y: { range } },
      axes: [axis(panel.x, { size: 24 }), axis(panel.y.replace("\n", " "), { size: 42 })],
      series: [{}, ...options.map((option, i) => ({ ...option, show: visible(roles[i]) }))],
      bands,
      hooks: { setCursor: [(self) => hover(self)], setSelect: [(self) => { self.zoomed = self.select.width > 0; }] },
    }, data, box);
    plot.over.append(tip);
    plot.over.addEventListener("mouseleave", () => { tip.hidden = true; });
    plot.over.addEventListener("dblclick", () => { plot.zoomed = false; plot.setData(data); });

    function point(color) {
      const made = element("div");
      made.style.background = color;
      return made;
    }

    // The values at the cursor, the highest first.
    function hover(self) {
      const at = self.cursor.idxs;
      const found = roles.map((role, i) => ({ ...role, i: at && at[i + 1] }))
        .filter((each) => each.role === "mean" && visible(each) && typeof each.i === "number")
        .map((each) => ({ look: chart.names[each.curve.name], x: data[0][each.i], ...values(each.curve, data[0][each.i]) }))
        .filter((each) => typeof each.y === "number")
        .sort((a, b) => b.y - a.y);
      tip.hidden = self.cursor.left < 0 || !found.length;
      if (tip.hidden) return;
      const table = element("table");
      table.append(...found.map(({ look, y, low, high }) => {
        const row = element("tr"), key = element("td"), value = element("td", "number", rounded(y));
        key.append(swatch(look), look.name);
        const between = typeof low === "number" ? `[${rounded(low)}, ${rounded(high)}]` : "";
        row.append(key, value, element("td", "number between", between));
        return row;
      }));
      const steps = [...new Set(found.map(({ x }) => x))];
      tip.replaceChildren(element("div", "at", `${panel.x} ${steps.map(shown).join(", ")}`), table);
      const right = self.cursor.left > self.over.clientWidth / 2;
      tip.style.left = right ? "auto" : `${self.cursor.left + 14}px`;
      tip.style.right = right ? `${self.over.clientWidth - self.cursor.left + 14}px` : "auto";
      tip.style.top = `${Math.min(self.cursor.top, self.over.clientHeight / 2)}px`;
    }

    function values(curve, x) {
      const i = panel.xs[curve.x].indexOf(x);
      return { y: curve.y[i], low: curve.low && curve.low[i], high: curve.high && curve.high[i] };
    }

    return {
      resize: () => plot.setSize(size()),
      show: () => plot.batch(() => roles.forEach((role, i) => plot.setSeries(i + 1, { show: visible(role) }))),
      // One name before the others, or all alike where there is none.
      focus: (name) => {
        roles.forEach(({ curve }, i) => { plot.series[i + 1].alpha = name === null || curve.name === name ? 1 : 0.15; });
        plot.redraw(false, false);
      },
    };
  }

  function chartOf(figure, script) {
    const chart = JSON.parse(script.textContent);
    const state = { hidden: new Set(), seeds: true };
    const live = element("div", "live"), keys = element("div", "keys"), panels = element("div", "panels");
    const plots = new Map();
    const all = (act) => plots.forEach(act);

    const buttons = chart.names.map((look, name) => {
      const button = element("button", "key");
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      button.title = "Click: hide or show. Double-click: this one alone.";
      button.append(swatch(look), look.name);
      button.addEventListener("click", () => toggle([name], !state.hidden.has(name)));
      button.addEventListener("dblclick", () => {
        const others = chart.names.map((_, i) => i).filter((i) => i !== name);
        toggle(others, !others.every((i) => state.hidden.has(i)));
        toggle([name], false);
      });
      button.addEventListener("mouseenter", () => all((plot) => plot.focus(state.hidden.has(name) ? null : name)));
      button.addEventListener("mouseleave", () => all((plot) => plot.focus(null)));
      return button;
    });

    function toggle(names, hide) {
      for (const name of names) {
        if (hide) state.hidden.add(name); else state.hidden.delete(name);
        buttons[name].setAttribute("aria-pressed", String(!hide));
      }
      all((plot) => plot.show());
    }

    // A legend with a title of its own keeps it.
    buttons.forEach((button, name) => {
      const { group } = chart.names[name];
      if (group && (name === 0 || group !== chart.names[name - 1].group)) keys.append(element("span", "group", `${group}:`));
      keys.append(button);
    });
    if (chart.panels.some((panel) => panel.curves.some((curve) => curve.seeds))) {
      const button = element("button", "key seeds", "single seeds");
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      button.addEventListener("click", () => {
        state.seeds = !state.seeds;
        button.setAttribute("aria-pressed", String(state.seeds));
        all((plot) => plot.show());
      });
      keys.append(button);
    }
    keys.append(element("span", "hint", "Drag to zoom, double-click to zoom out, click a name to hide it."));

    // A panel is drawn when there is room for it: not while it lies in a closed part of the page.
    const watch = new ResizeObserver((entries) => {
      for (const { target } of entries) {
        if (!target.clientWidth) continue;
        if (plots.has(target)) plots.get(target).resize();
        else plots.set(target, draw(target, target.panel, chart, state));
      }
    });
    live.classList.toggle("many", chart.panels.length > 1);
    live.classList.toggle("tall", chart.columns < 4);
    panels.style.setProperty("--columns", chart.columns);
    for (const panel of chart.panels) {
      const holder = element("div", "panel"), box = element("div", "plot");
      box.panel = panel;
      if (panel.title) {
        const title = element("button", "title", panel.title);
        title.type = "button";
        title.title = "Larger, smaller";
        title.addEventListener("click", () => holder.classList.toggle("large"));
        holder.append(title);
      }
      holder.append(box);
      panels.append(holder);
      watch.observe(box);
    }
    live.append(keys, panels);
    figure.classList.add("drawn"); // the figure itself is for print from now on
    script.after(live);
  }

  for (const script of document.querySelectorAll("figure script[type='application/json']")) {
    chartOf(script.parentElement, script);
  }
})();
