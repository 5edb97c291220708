// Asks for the plots in the colours of the page and lets Bokeh draw them; again when the
// colours change.
const plot = document.querySelector("[data-figure]");

async function draw() {
  const url = new URL(plot.dataset.figure, location.href);
  url.searchParams.set("shade", document.documentElement.dataset.bsTheme);
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`the plot was answered with ${answer.status}`);
  const figure = await answer.json();
  for (const old of Bokeh.documents.splice(0)) {
    // or it would go on asking for news
    for (const model of old.all_models) if (model.type === "AjaxDataSource") model.destroy();
    old.clear();
  }
  plot.replaceChildren();
  await Bokeh.embed.embed_item(figure, plot);
}

draw();
document.addEventListener("themechange", draw);
