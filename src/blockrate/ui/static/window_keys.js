// What Esc and the browser's Back mean in a window. One handler decides, in the
// browser, so that two quick presses are never taken for one: an open list is
// Quasar's to close, a selection is cleared, and only then the window asks to be
// closed.
export default {
  template: `<span hidden></span>`,
  mounted() {
    this.root = this.$el.closest(".q-dialog");
    history.pushState("window", ""); // what Back leaves
    window.addEventListener("keydown", this.onKey, true);
    window.addEventListener("popstate", this.onBack);
  },
  beforeUnmount() {
    window.removeEventListener("keydown", this.onKey, true);
    window.removeEventListener("popstate", this.onBack);
    if (history.state === "window") history.back();
  },
  methods: {
    onKey(event) {
      const front = [...document.querySelectorAll(".q-dialog")].at(-1);
      const ours = event.key === "Escape" && front === this.root;
      if (!ours || document.querySelector(".q-menu")) return;
      event.preventDefault();
      event.stopPropagation();
      const chosen = this.root.querySelector("[data-selection]");
      if (chosen) chosen.dispatchEvent(new CustomEvent("clear-selection"));
      else if (!event.repeat) this.leave();
    },
    onBack() {
      history.pushState("window", "");
      this.leave();
    },
    leave() {
      // what is being typed counts too
      document.activeElement?.dispatchEvent(new Event("change", { bubbles: true }));
      this.$emit("close");
    },
  },
};
