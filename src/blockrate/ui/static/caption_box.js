// The box of a caption. What is in it is the browser's own: nothing that is drawn anew
// around it takes away what is being written.
const PAUSE = 400;
const MOVES = { PageUp: -1, PageDown: 1 };

export default {
  props: {
    name: String,
    first: String,
    longest: Number,
    rows: Number,
    // another picture is a key away
    moves: Boolean,
  },
  emits: ["left", "typed", "move"],
  template: `
    <textarea
      ref="box"
      class="caption-box"
      :value="text"
      :rows="rows"
      :maxlength="longest"
      :readonly="waiting"
      :aria-label="name"
      placeholder="No caption"
      @input="type"
      @change="leave"
      @keydown="press"
    ></textarea>`,
  data() {
    // waiting: for the next picture, whose caption is not this one
    return { text: this.first, waiting: false };
  },
  created() {
    this.told = this.first;
    this.hidden = () => document.hidden && this.leave();
    document.addEventListener("visibilitychange", this.hidden);
  },
  beforeUnmount() {
    clearTimeout(this.pause);
    document.removeEventListener("visibilitychange", this.hidden);
  },
  methods: {
    type(event) {
      this.text = event.target.value;
      clearTimeout(this.pause);
      this.pause = setTimeout(() => this.$emit("typed", this.text), PAUSE);
    },
    leave() {
      if (this.text === this.told) return;
      this.told = this.text;
      this.$emit("left", this.text);
    },
    press(event) {
      // the dialog around it is gone before the box is left
      if (event.key === "Escape") this.leave();
      const step = MOVES[event.key];
      if (!this.moves || !step || event.ctrlKey || event.shiftKey) return;
      event.preventDefault();
      this.leave();
      this.waiting = true;
      this.$emit("move", step);
    },
    // What the box is to hold, unless something else is being written in it by now.
    show(text, instead) {
      if (instead !== undefined && this.text !== instead) return;
      this.text = text;
      this.told = text;
    },
    goOn() {
      this.waiting = false;
    },
  },
};
