// Pictures that are dropped or pasted anywhere on the page.

/** Gives them to `take`, with the element that they were dropped on. While a dialog is open, what is pasted belongs to it. */
export function start(take) {
  addEventListener("paste", (event) => {
    if (document.querySelector("dialog[open]") || !event.clipboardData?.files.length) return;
    event.preventDefault();
    take(event.clipboardData.files);
  });
  let depth = 0;
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  const over = (on) => document.body.classList.toggle("dragging", on);
  addEventListener("dragenter", (event) => holdsFiles(event) && over(++depth > 0));
  addEventListener("dragleave", (event) => holdsFiles(event) && over((depth = Math.max(0, depth - 1)) > 0));
  addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    over(false);
    depth = 0;
    take(event.dataTransfer.files, event.target);
  });
}
