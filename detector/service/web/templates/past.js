// Leaves of the lists what the text in the box is found in. Without it everything is shown.
"use strict";
for (const box of document.querySelectorAll("input[data-filters]")) {
  box.hidden = false;
  box.addEventListener("input", () => {
    const wanted = box.value.toLowerCase();
    for (const one of document.querySelectorAll(box.dataset.filters)) {
      one.hidden = !one.textContent.toLowerCase().includes(wanted);
    }
  });
}
