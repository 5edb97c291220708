// Asks for the plots in the colours of the page and lets Bokeh draw them; again when the
// colours change.
const plot = document.querySelector("[data-figure]");

async function draw() {
  const url = new URL(plot.dataset.figure, location.href);
  url.searchParams.set("shade", document.documentElement.dataset.bsTheme);
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`the plot was answered with ${answer.status}`);
  const figure = await answer.json();
  for (const view of Object.values(Bokeh.index)) {
    for (const source of view.model.select?.("AjaxDataSource") ?? []) source.destroy();
    view.remove?.();
  }
  plot.replaceChildren();
  await Bokeh.embed.embed_item(figure, plot);
}

draw();
document.addEventListener("themechange", draw);
