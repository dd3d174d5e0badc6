"use strict";
// Draws the charts from the data in the page, in the colours of its theme, and lets the reader
// switch theme, views and exchanges, and sort tables. Nothing is loaded and nothing is sent.
(() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const darkSystem = matchMedia("(prefers-color-scheme: dark)");
  // On a touch screen a finger on a chart scrolls the page; the chart's own buttons zoom.
  const touch = matchMedia("(pointer: coarse)").matches;
  const narrow = matchMedia("(max-width: 40rem)");
  const shown = Object.fromEntries(page.charts.map((chart) => [chart.id, chart.shown]));
  const hidden = new Set();

  const theme = () => root.dataset.theme || (darkSystem.matches ? "dark" : "light");

  function faded(colour, opacity) {
    const parts = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
    return `rgba(${parts.join(",")},${opacity})`;
  }

  function painted(trace, colours) {
    const colour = colours[trace.meta.key] || colours.none;
    const copy = { ...trace };
    if (trace.meta.paint === "bar") {
      copy.marker = { color: colour };
    } else if (trace.meta.paint === "band") {
      copy.fillcolor = faded(colour, theme() === "dark" ? 0.13 : 0.1);
    } else {
      copy.line = { ...trace.line, color: colour };
      copy.marker = { ...trace.marker, color: colour };
      if (trace.error_y) copy.error_y = { ...trace.error_y, color: colour };
    }
    if (hidden.has(trace.meta.exchange)) copy.visible = false;
    return copy;
  }

  function layoutOf(chart, view) {
    const style = getComputedStyle(document.querySelector(".card"));
    const axis = { gridcolor: style.borderTopColor, linecolor: style.borderTopColor, zerolinecolor: style.borderTopColor };
    const layout = {
      ...view.layout,
      autosize: true,
      height: chart.height,
      margin: { l: 8, r: narrow.matches ? 8 : 18, t: 32, b: 8 },
      font: { family: getComputedStyle(document.body).fontFamily, size: narrow.matches ? 11 : 12.5, color: style.color },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      hoverlabel: { bgcolor: style.backgroundColor, bordercolor: style.borderTopColor, font: { color: style.color }, align: "left", namelength: -1 },
      hovermode: "closest",
      dragmode: touch ? false : "zoom",
      legend: { orientation: "h", x: 0, xanchor: "left", yref: "container", y: 0, yanchor: "bottom", traceorder: "normal", bgcolor: "rgba(0,0,0,0)" },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: style.color, activecolor: style.color },
      // Zoom stays over a change of theme, and goes with a change of view.
      uirevision: view.name,
    };
    for (const name of ["xaxis", "yaxis"]) layout[name] = { ...axis, ...view.layout[name] };
    if (narrow.matches && layout.xaxis.tickvals?.length > 5) {
      // Every second label, the last among them, or they would not lie side by side.
      const { tickvals, ticktext } = layout.xaxis;
      const kept = (_, at) => (tickvals.length - 1 - at) % 2 === 0;
      Object.assign(layout.xaxis, { tickvals: tickvals.filter(kept), ticktext: ticktext.filter(kept), tickangle: 0 });
    }
    for (const shape of layout.shapes || []) shape.line.color = style.color;
    return layout;
  }

  function draw(chart) {
    const view = chart.views[shown[chart.id]];
    const colours = page.palette[theme()];
    // Named one by one: plotly.js has others by itself, one of which sends charts away.
    const zoom = ["zoomIn2d", "zoomOut2d", "resetScale2d"];
    const buttons = touch ? [zoom] : [["zoom2d", "pan2d"], zoom, ["toImage"]];
    const config = { responsive: true, displaylogo: false, modeBarButtons: buttons };
    return Plotly.react(chart.id, view.traces.map((trace) => painted(trace, colours)), layoutOf(chart, view), config);
  }

  function drawAll() {
    for (const dot of document.querySelectorAll(".chip i")) {
      dot.style.background = page.palette[theme()][dot.parentElement.dataset.key];
    }
    page.charts.forEach(draw);
  }

  function setTheme(name) {
    root.dataset.theme = name;
    try {
      localStorage.setItem("commbench-theme", name);
    } catch {
      // A page opened from a file may have no storage; the choice then lasts as long as the page.
    }
    drawAll();
  }

  function press(buttons, chosen) {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button === chosen));
  }

  document.getElementById("theme").addEventListener("click", () => setTheme(theme() === "dark" ? "light" : "dark"));
  darkSystem.addEventListener("change", drawAll);

  for (const group of document.querySelectorAll(".views")) {
    group.addEventListener("click", ({ target }) => {
      if (!target.dataset.view) return;
      press(group.children, target);
      shown[group.dataset.chart] = Number(target.dataset.view);
      draw(page.charts.find((chart) => chart.id === group.dataset.chart));
    });
  }

  for (const chip of document.querySelectorAll(".chip")) {
    chip.addEventListener("click", () => {
      const { exchange } = chip.dataset;
      const hide = !hidden.has(exchange);
      if (hide) hidden.add(exchange);
      else hidden.delete(exchange);
      chip.setAttribute("aria-pressed", String(!hide));
      for (const row of document.querySelectorAll("tr[data-exchange]")) {
        row.hidden = hidden.has(row.dataset.exchange);
      }
      page.charts.forEach(draw);
    });
  }

  function sort(heading) {
    const body = heading.closest("table").tBodies[0];
    const descending = heading.getAttribute("aria-sort") === "ascending";
    const column = heading.cellIndex;
    const key = ({ cells }) => cells[column].dataset.value ?? cells[column].textContent;
    const rows = [...body.rows].sort((a, b) => key(a).localeCompare(key(b), "en"));
    if ([...body.rows].some(({ cells }) => "value" in cells[column].dataset)) {
      // What is not known comes last in either direction.
      const worst = descending ? -Infinity : Infinity;
      const value = ({ cells }) => Number(cells[column].dataset.value ?? worst);
      rows.sort((a, b) => value(a) - value(b));
    }
    body.append(...(descending ? rows.reverse() : rows));
    for (const other of heading.parentElement.cells) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  }

  for (const button of document.querySelectorAll("th button")) {
    button.addEventListener("click", () => sort(button.parentElement));
  }

  try {
    root.dataset.theme = localStorage.getItem("commbench-theme") || "";
  } catch {
    // As above.
  }
  drawAll();
})();
