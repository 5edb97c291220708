// Asks for each plot of the page in its colours and lets Bokeh draw it; again when the
// colours change. Nothing is asked for while the page is hidden.
const plots = [...document.querySelectorAll("[data-figure]")];
const drawn = new Map();

function forget(plot) {
  const old = drawn.get(plot);
  if (!old) return;
  drawn.delete(plot);
  // or it would go on asking for news
  for (const model of old.all_models) if (model.type === "AjaxDataSource") model.destroy();
  old.clear();
  Bokeh.documents.splice(Bokeh.documents.indexOf(old), 1);
}

async function draw(plot) {
  const url = new URL(plot.dataset.figure, location.href);
  const shade = document.documentElement.dataset.bsTheme;
  url.searchParams.set("shade", shade);
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`the plot was answered with ${answer.status}`);
  const figure = await answer.json();
  if (shade !== document.documentElement.dataset.bsTheme) return;
  forget(plot);
  plot.replaceChildren();
  const views = await Bokeh.embed.embed_item(figure, plot);
  const made = views.roots[0].model.document;
  drawn.set(plot, made);
  plot.dispatchEvent(new CustomEvent("plotdrawn", { bubbles: true, detail: made }));
}

function drawAll() {
  for (const plot of plots) {
    draw(plot).catch((error) => {
      const words = plot.querySelector("[data-plot-waits]");
      if (words) words.textContent = "The plot could not be loaded. Load this page again.";
      console.error(error);
    });
  }
}

document.addEventListener("themechange", drawAll);
// what is drawn does not fit to what it shows any more
document.addEventListener("plotstale", drawAll);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) plots.forEach(forget);
  else drawAll();
});
if (!document.hidden) drawAll();
