// The arrow keys go to the image before and after, unless somebody is writing.
document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (event.target.closest("input, select, textarea")) return;
  document.querySelector(`[data-key-link="${event.key}"]`)?.click();
});
