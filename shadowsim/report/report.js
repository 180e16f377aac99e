"use strict";
const textOf = (id) => document.getElementById(id).textContent;
const [dark, narrow, coarse] = ["(prefers-color-scheme: dark)", "(max-width: 600px)", "(pointer: coarse)"]
  .map((query) => matchMedia(query));
const paperWidth = 700;  // it is narrower than most screens, and Plotly does not measure it
const drawn = new Set();
let json = "", printing = false;

async function unpacked(id) {
  const letters = atob(textOf(id)), packed = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) packed[i] = letters.charCodeAt(i);
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

// Figures are made for white paper; on a dark screen each of their colours has another.
function figuresToDraw() {
  const colours = dark.matches && !printing ? Object.entries(JSON.parse(textOf("dark"))) : [];
  const figures = JSON.parse(colours.reduce((all, [light, other]) => all.replaceAll(light, other), json));
  const style = getComputedStyle(document.documentElement);
  const [ground, ink] = ["--ground", "--ink"].map((name) => style.getPropertyValue(name));
  for (const {data, layout} of Object.values(figures)) {
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.hoverlabel = {...layout.hoverlabel, bgcolor: ground, font: {color: ink}};
    if (coarse.matches) layout.dragmode = false;  // a finger on a chart scrolls the page
    if (printing) {
      squeeze(layout, ["overload"], 10);
      for (const {colorbar} of data) if (colorbar?.tickvals) for (const name of ["tickvals", "ticktext"])
        colorbar[name] = [colorbar[name][0], colorbar[name].at(-1)];  // a low map has no room for more
      const rows = layout.yaxis?.type === "category" || layout.yaxis?.categoryorder, panels = layout.height > 500;
      const crowded = layout.yaxis?.ticktext?.length > 6;
      const isMap = layout.xaxis?.type === "category";
      const part = isMap ? 0.6 : rows ? 0.8 : crowded || panels ? 0.58 : 0.48;
      Object.assign(layout, {width: paperWidth, height: Math.round(part * layout.height)});
      layout.margin.b -= 14;
    } else if (narrow.matches) {
      squeeze(layout, ["aside", "overload"]);
      // so that it fits a cell of a map
      for (const one of layout.annotations) if (one.text === "OVERLOADED") one.text = "OVER-<br>LOADED";
    }
  }
  return figures;
}

// Where there is little room, what stands beside rows and legends gives way to them; tables and legends have it.
function squeeze(layout, names, size = 11) {
  layout.font.size = 11;
  for (const [name, axis] of Object.entries(layout)) {
    if (/^[xy]axis/.test(name) && axis.title) Object.assign(axis.title, {font: {size}}, name[0] === "x" ? {standoff: 6} : {});
  }
  const all = layout.annotations ?? [];
  layout.annotations = all.filter((one) => !names.includes(one.name));
  if (layout.annotations.length < all.length) layout.margin.r = 16;
}

function draw(key, {data, layout}) {
  drawn.add(key);
  document.getElementById(key).style.height = `${layout.height}px`;
  return Plotly.react(key, data, layout, {
    responsive: !printing, displaylogo: false, showSendToCloud: false, plotlyServerURL: "",
    displayModeBar: narrow.matches ? false : "hover", modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
  });
}

function redraw() {
  Object.entries(figuresToDraw()).forEach(([key, figure]) => draw(key, figure));
}

async function start() {
  const [plotly, data] = await Promise.all(["plotly", "data"].map(unpacked));
  json = data;
  const script = document.createElement("script");
  script.textContent = plotly;  // the policy allows it by its hash
  document.head.append(script);
  addEventListener("beforeprint", () => { printing = true; redraw(); });
  addEventListener("afterprint", () => { printing = false; redraw(); });
  for (const [key, figure] of Object.entries(figuresToDraw())) {
    if (!drawn.has(key)) draw(key, figure);
    await new Promise((next) => setTimeout(next));  // so that the page answers between two charts
  }
  document.documentElement.dataset.charts = "drawn";
  for (const query of [dark, narrow]) query.addEventListener("change", redraw);
}

start().catch((error) => {
  const sorry = "This browser cannot draw the chart; the page's tables and texts have its figures.";
  for (const place of document.querySelectorAll("figure .chart")) place.textContent = sorry;
  console.error(error);
});
