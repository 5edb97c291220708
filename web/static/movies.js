// A click plays a movie in its place, and another one stops it.
for (const link of document.querySelectorAll("[data-movie]")) {
  const picture = link.querySelector("img");
  const still = picture.src;
  link.setAttribute("role", "button");
  link.setAttribute("aria-pressed", "false");
  link.addEventListener("click", (event) => {
    event.preventDefault();
    const plays = link.getAttribute("aria-pressed") === "true";
    link.classList.toggle("oc-waits", !plays);
    picture.addEventListener("load", () => link.classList.remove("oc-waits"), { once: true });
    picture.src = plays ? still : link.dataset.movie;
    link.setAttribute("aria-pressed", String(!plays));
  });
  link.addEventListener("keydown", (event) => {
    if (event.key !== " ") return;
    event.preventDefault();
    link.click();
  });
}
