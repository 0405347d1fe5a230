// Two pictures on top of each other, and a line between them that is moved by mouse, finger or keys.
export default {
  props: {
    left: Object, // its `source` and its `name`
    right: Object,
    words: String, // what both show
  },
  template: `
    <figure class="image-slider" :style="{ '--at': at + '%' }">
      <div @pointerdown="press" @pointermove="move">
        <img :src="right.source" :alt="words + ', ' + right.name" draggable="false" />
        <img :src="left.source" :alt="words + ', ' + left.name" class="is-left" draggable="false" />
        <i aria-hidden="true"></i>
      </div>
      <input
        v-model.number="at"
        type="range"
        class="slider"
        min="0"
        max="100"
        :aria-label="'Line between ' + left.name + ' and ' + right.name"
        :aria-valuetext="at + ' % ' + left.name"
      />
      <figcaption><span>{{ left.name }}</span><span>{{ right.name }}</span></figcaption>
    </figure>`,
  data() {
    return { at: 50 };
  },
  methods: {
    press(event) {
      event.currentTarget.setPointerCapture(event.pointerId);
      this.put(event);
    },
    move(event) {
      if (event.buttons) this.put(event);
    },
    put({ currentTarget, clientX }) {
      const box = currentTarget.getBoundingClientRect();
      const share = (clientX - box.left) / box.width;
      this.at = Math.round(100 * Math.min(1, Math.max(0, share)));
    },
  },
};
