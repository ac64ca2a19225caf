// One slide at a time, and on it one step at a time, moved by keys or buttons; the address names the slide, so that
// it can be linked to. A slide that one comes back to has all its steps.
(() => {
  const slides = [...document.querySelectorAll(".slide")];
  const place = document.getElementById("place");
  let current = 0;

  const show = (number) => {
    current = Math.min(Math.max(number, 0), slides.length - 1);
    slides.forEach((slide, at) => slide.classList.toggle("current", at === current));
    place.textContent = `${current + 1} / ${slides.length}`;
    history.replaceState(null, "", `#slide-${current + 1}`);
  };
  const steps = () => [...slides[current].querySelectorAll(".step:not(.taken)")];
  const forward = () => {
    const [step] = steps();
    if (step) step.classList.add("taken");
    else show(current + 1);
  };
  const back = () => {
    show(current - 1);
    steps().forEach((step) => step.classList.add("taken"));
  };
  const named = () => slides.findIndex((slide) => `#${slide.id}` === location.hash);
  const moves = {
    ArrowRight: 1, ArrowDown: 1, PageDown: 1, " ": 1,
    ArrowLeft: -1, ArrowUp: -1, PageUp: -1,
    Home: -Infinity, End: Infinity,
  };

  document.addEventListener("keydown", (event) => {
    // A slider in a slide keeps the arrow keys, a button the space bar.
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input")) return;
    if (event.key === " " && event.target.matches("button, a")) return;
    if (event.key in moves) {
      event.preventDefault();
      const move = moves[event.key];
      move === 1 ? forward() : move === -1 ? back() : show(current + move);
    } else if (event.key === "n") {
      document.documentElement.classList.toggle("with-notes");
    } else if (event.key === "f") {
      document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen();
    }
  });
  document.getElementById("back").addEventListener("click", back);
  document.getElementById("next").addEventListener("click", forward);
  window.addEventListener("hashchange", () => show(Math.max(named(), 0)));
  // What does not fit can be scrolled, with the keyboard too.
  slides.forEach((slide) => slide.querySelector(".body")?.setAttribute("tabindex", "-1"));
  document.documentElement.classList.add("scripted");
  show(Math.max(named(), 0));
})();
