"use strict";
// Of images in a row one is shown at a time, by the slider or by themselves. Without this they stand in a strip.
for (const frames of document.querySelectorAll(".frames")) {
  const images = [...frames.querySelectorAll("img")];
  const controls = frames.querySelector(".controls"), button = controls.querySelector("button");
  const slider = controls.querySelector("input"), label = controls.querySelector("output");
  let timer = 0;
  const show = () => {
    images.forEach((image, place) => { image.hidden = place !== slider.valueAsNumber; });
    label.value = images[slider.valueAsNumber].alt;
  };
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    button.textContent = "Play";
  };
  const step = () => {
    slider.value = (slider.valueAsNumber + 1) % images.length;
    show();
  };
  button.addEventListener("click", () => {
    if (timer) return stop();
    timer = setInterval(step, 120);
    button.textContent = "Stop";
  });
  slider.addEventListener("input", () => { stop(); show(); });
  frames.classList.add("one");
  controls.hidden = false;
  show();
}
