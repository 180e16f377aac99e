"use strict";
const figures = JSON.parse(document.getElementById("data").textContent);
const narrow = matchMedia("(max-width: 600px)").matches;
const config = {
  responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "",
  displayModeBar: narrow ? false : "hover", modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
};
for (const [key, figure] of Object.entries(figures)) {
  // A finger on a chart scrolls the page.
  if (matchMedia("(pointer: coarse)").matches) figure.layout.dragmode = false;
  if (narrow) figure.layout.font.size = 11;
  Plotly.newPlot(key, figure.data, figure.layout, config);
}
// Paper is narrower than most screens, and Plotly does not measure it.
const resize = (size) => Object.keys(figures).forEach((key) => Plotly.relayout(key, size));
addEventListener("beforeprint", () => resize({width: 660}));
addEventListener("afterprint", () => resize({width: null, autosize: true}));
