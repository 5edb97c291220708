// Light or dark, before anything is drawn: what was chosen here, else what the system
// prefers.
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const kept = () => {
    try { return localStorage.getItem("theme"); } catch { return null; }
  };
  const apply = () => {
    const theme = kept() ?? (system.matches ? "dark" : "light");
    if (root.dataset.bsTheme === theme) return;
    root.dataset.bsTheme = theme;
    document.dispatchEvent(new CustomEvent("themechange"));
  };
  apply();
  system.addEventListener("change", apply);
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.querySelector("[data-theme-switch]");
    button.hidden = false;
    button.addEventListener("click", () => {
      const other = root.dataset.bsTheme === "dark" ? "light" : "dark";
      try { localStorage.setItem("theme", other); } catch { /* for this page only */ }
      root.dataset.bsTheme = other;
      document.dispatchEvent(new CustomEvent("themechange"));
    });
  });
})();
