// A picture to ask about: chosen, dropped or pasted, shown, and sent as base64.

/** Makes the field of the form work; `problem` is called with what is wrong with a file, or "". */
export function pictureField({ field, input, preview, remove }, problem) {
  let chosen = null;

  function take(file) {
    if (file && !file.type.startsWith("image/")) {
      problem(`${file.name} is not a picture.`);
      return;
    }
    problem("");
    input.files = listOf(file);
    if (chosen) URL.revokeObjectURL(chosen.address);
    chosen = file ? { file, address: URL.createObjectURL(file) } : null;
    preview.hidden = remove.hidden = chosen === null;
    if (chosen) preview.src = chosen.address;
    else preview.removeAttribute("src");
    preview.alt = chosen ? `The picture to classify, ${chosen.file.name}` : "";
  }

  input.addEventListener("change", () => input.files.length && take(input.files[0]));
  remove.addEventListener("click", () => {
    take(null);
    input.focus();
  });
  field.addEventListener("dragover", (event) => {
    event.preventDefault();
    field.classList.add("over");
  });
  field.addEventListener("dragleave", () => field.classList.remove("over"));
  field.addEventListener("drop", (event) => {
    event.preventDefault();
    field.classList.remove("over");
    take(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find((each) => each.type.startsWith("image/"));
    if (file && !field.hidden) take(file);
  });

  return {
    /** The address of the picture on this page; null without one. */
    address: () => (field.hidden ? null : chosen?.address ?? null),
    /** The name of its file. */
    name: () => chosen?.file.name ?? "",
    /** The picture in base64; null without one. */
    encoded: () => (field.hidden || chosen === null ? Promise.resolve(null) : base64(chosen.file)),
  };
}

function listOf(file) {
  const list = new DataTransfer();
  if (file) list.items.add(file);
  return list.files;
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result.slice(reader.result.indexOf(",") + 1)));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}
