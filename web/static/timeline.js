// Asks for what is drawn of the time that somebody zooms into, so that what was taken
// together comes apart; and lets the time grow with a job that runs.
const WAIT_MS = 250;

document.addEventListener("plotdrawn", (event) => {
  const model = (name) => event.detail.get_model_by_name(name);
  const [spans, rates, shown, whole] = ["spans", "rates", "window", "whole"].map(model);
  if (!spans?.data_url || !rates || !shown || !whole) return;
  const lanes = rates.get_column("lanes")[0];
  let waiting = null;

  function ask() {
    const url = new URL(spans.data_url, location.href);
    url.searchParams.set("start", shown.start);
    url.searchParams.set("end", shown.end);
    spans.data_url = url.href;
    spans.get_data("replace", 0, false);
  }

  function later() {
    clearTimeout(waiting);
    waiting = setTimeout(ask, WAIT_MS);
  }

  for (const side of ["start", "end"]) shown.properties[side].change.connect(later);
  rates.properties.data.change.connect(() => {
    const ends = rates.get_column("right");
    const end = ends[ends.length - 1];
    if (rates.get_column("lanes")[0] !== lanes) {
      // a worker has joined
      document.dispatchEvent(new Event("plotstale"));
      return;
    }
    if (end <= whole.end) return;
    // who looks at the newest goes on to do so
    const follows = shown.end >= whole.end;
    whole.end = end;
    if (follows) shown.end = end;
  });
});
