// One setting: a slider, and a field to type in. Its value is the kernel's; what is asked for is dashed until confirmed.

function render({ model, el }) {
  setUp(el, "wb-setting");
  const [send, stopAsking] = makeAsk(model, el);
  const id = `wb-${Math.random().toString(36).slice(2)}`;
  const label = document.createElement("label");
  label.htmlFor = id;
  const slider = document.createElement("input");
  slider.type = "range";
  slider.id = id;
  const field = document.createElement("input");
  field.type = "text";
  field.inputMode = "decimal";
  el.append(label, slider, field);

  const LOG_STEPS = 100;
  const log = () => model.get("logarithmic");
  const low = () => model.get("low");
  const high = () => model.get("high");
  const toSlider = (value) => (log() ? (LOG_STEPS * Math.log(value / low())) / Math.log(high() / low()) : value);
  const fromSlider = (place) => {
    const value = log() ? low() * (high() / low()) ** (place / LOG_STEPS) : Number(place);
    return Number(value.toPrecision(log() ? 2 : 4));
  };
  const written = (value) => String(Number(value.toPrecision(4)));

  function show() {
    const value = model.get("value");
    el.hidden = model.get("label") === "";
    label.textContent = model.get("label");
    slider.title = field.title = model.get("title");
    slider.min = log() ? 0 : low();
    slider.max = log() ? LOG_STEPS : high();
    slider.step = log() ? 1 : model.get("step");
    field.setAttribute("aria-label", `${model.get("label")}, typed`);
    el.dataset.pending = model.get("pending");
    if (el.ownerDocument.activeElement !== slider || !model.get("pending")) slider.value = toSlider(value);
    if (el.ownerDocument.activeElement !== field) field.value = written(value);
    slider.setAttribute("aria-valuetext", written(value));
  }

  const ask = (value) => send({ type: "value", value });
  slider.addEventListener("input", () => {
    field.value = written(fromSlider(slider.value));
    slider.setAttribute("aria-valuetext", field.value);
  });
  slider.addEventListener("change", () => ask(fromSlider(slider.value)));
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter") ask(field.value.trim().replace(",", "."));
    if (event.key === "Escape") field.value = written(model.get("value"));
  });
  field.addEventListener("blur", () => {
    if (field.value !== written(model.get("value"))) ask(field.value.trim().replace(",", "."));
  });
  const traits = "change:value change:label change:title change:pending change:low change:high";
  model.on(traits, show);
  show();
  return () => {
    stopAsking();
    model.off(traits, show);
  };
}

export default { render };
