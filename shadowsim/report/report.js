"use strict";
const text = (id) => document.getElementById(id).textContent;
const [dark, narrow, coarse] = ["(prefers-color-scheme: dark)", "(max-width: 600px)", "(pointer: coarse)"].map(matchMedia.bind(window));
const printedWidth = 700, printedHeight = 0.72;  // paper is narrower than most screens, and Plotly does not measure it
const drawn = new Set();
let printing = false;

// Figures are made for white paper; on a dark screen each of their colours has another.
function figuresInTheirColours() {
  const isDark = dark.matches && !printing;
  const colours = isDark ? Object.entries(JSON.parse(text("dark"))) : [];
  const figures = JSON.parse(colours.reduce((json, [light, other]) => json.replaceAll(light, other), text("data")));
  const style = getComputedStyle(document.documentElement);
  const [ground, ink] = isDark || !printing ? ["--ground", "--ink"].map((name) => style.getPropertyValue(name)) : ["#fff", "#222"];
  for (const {layout} of Object.values(figures)) {
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.hoverlabel = {...layout.hoverlabel, bgcolor: ground, font: {color: ink}};
    if (coarse.matches) layout.dragmode = false;  // a finger on a chart scrolls the page
    if (narrow.matches && !printing) squeeze(layout);
    if (printing) Object.assign(layout, {width: printedWidth, height: Math.round(printedHeight * layout.height), autosize: false});
  }
  return figures;
}

// On a narrow screen the values beside rows give way to the rows.
function squeeze(layout) {
  layout.font.size = 11;
  const aside = (layout.annotations ?? []).filter((a) => a.name === "aside");
  if (aside.length) {
    layout.annotations = layout.annotations.filter((a) => a.name !== "aside");
    layout.margin.r = 16;
  }
}

function draw(key, figures) {
  const config = {
    responsive: !printing, displaylogo: false, showSendToCloud: false, plotlyServerURL: "",
    displayModeBar: narrow.matches ? false : "hover", modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
  };
  drawn.add(key);
  return Plotly.react(key, figures[key].data, figures[key].layout, config);
}

function redraw() {
  const figures = figuresInTheirColours();
  Object.keys(figures).forEach((key) => draw(key, figures));
}

async function start() {
  const packed = Uint8Array.from(atob(text("plotly")), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();  // the policy allows it by its hash
  document.head.append(script);
  const figures = figuresInTheirColours();
  for (const key of Object.keys(figures)) {
    if (!drawn.has(key)) draw(key, figures);
    await new Promise((next) => setTimeout(next));  // so that the page answers between two charts
  }
  document.documentElement.dataset.charts = "drawn";
  dark.addEventListener("change", redraw);
  narrow.addEventListener("change", redraw);
  addEventListener("beforeprint", () => { printing = true; redraw(); });
  addEventListener("afterprint", () => { printing = false; redraw(); });
}

start().catch((error) => {
  for (const place of document.querySelectorAll("figure .chart")) place.textContent = "This browser cannot draw charts; tables and texts have their figures.";
  console.error(error);
});
