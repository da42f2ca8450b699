// Draws every figure whose JSON stands in the page.
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
for (const place of document.querySelectorAll("[data-figure]")) {
  const figure = JSON.parse(document.getElementById(place.dataset.figure).textContent);
  figure.layout.autosize = true;
  const config = { responsive: true, displayModeBar: false, staticPlot: still };
  Plotly.newPlot(place, figure.data, figure.layout, config).then(() => place.setAttribute("data-drawn", ""));
}
